"""Alignment on phantoms whose pixels say what they show, read by phantom eyes.

A phantom's first pixel holds the finding, its second the modality, its third the cardiothoracic
ratio in percent, its fourth and fifth the opacity of the right and left lung.
"""

import numpy as np
import pytest
from PIL import Image

from medgen.evaluation import alignment, chest, reader, seen
from medgen.evaluation.alignment import measure
from medgen.evaluation.asked import asked, asked_ratio, asked_side
from medgen.evaluation.chest_response import equal_bins, slope, spearman
from medgen.evaluation.context import Context
from medgen.evaluation.image_text import caption, contrary, contrasts, key_of
from medgen.evaluation.presence import presence_accuracy, sensitivity, specificity
from medgen.evaluation.tables import ImageTable, Row
from medgen.records import Finding, Measurement

BRAIN, FILM = "Brain MRI", "Chest X-ray"
SHOWN = {"glioma": 10, "meningioma": 20, "pituitary tumor": 30, "nothing": 40}
NAMES = {value: name for name, value in SHOWN.items()}
MODALS = {BRAIN: 1, FILM: 2, "OCT": 3}
TEXTS = {
    "glioma": ("Brain MRI showing a glioma.", Finding(finding="glioma")),
    "meningioma": ("Brain MRI showing a meningioma.", Finding(finding="meningioma")),
    "nothing": ("Brain MRI with no tumor.", Finding(finding="brain tumor", status="absent")),
}


class PhantomCLIP:
    """One axis a finding; an image or a text lies on the axis of what it shows or names."""

    name = "phantom"

    def image_embeddings(self, images):
        return np.eye(5, dtype=np.float32)[[list(SHOWN.values()).index(i[0, 0, 0]) for i in images]]

    def text_embeddings(self, texts):
        axes = [
            next((k for k, name in enumerate(SHOWN) if name in text.lower()), 3) for text in texts
        ]
        return np.eye(5, dtype=np.float32)[axes]


def phantom_read(images):
    readings = []
    for image in images:
        modal = next(name for name, code in MODALS.items() if code == image[0, 1, 0])
        shown = NAMES.get(int(image[0, 0, 0]))
        tumors = ("glioma", "meningioma", "pituitary tumor")
        findings = {name: float(name == shown) for name in tumors} if modal == BRAIN else {}
        if findings:
            findings["brain tumor"] = float(shown in tumors)
        readings.append(reader.Reading(modal, 1.0, findings))
    return readings


def phantom_films(images):
    return [
        chest.Film(i[0, 2, 0] / 100 if i[0, 2, 0] else None, (i[0, 3, 0] / 255, i[0, 4, 0] / 255))
        for i in images
    ]


@pytest.fixture(autouse=True)
def phantom_eyes(monkeypatch):
    monkeypatch.setattr(seen.reader, "read", phantom_read)
    monkeypatch.setattr(seen.chest, "read_films", phantom_films)


def draw(folder, name, index, values):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[0, : len(values)] = np.array(values)[:, None]
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}{index}.png"
    Image.fromarray(pixels).save(path)
    return path


def brain(folder, name, asks, shows, modal=BRAIN, source=""):
    rows = []
    for index, (ask, show) in enumerate(zip(asks, shows, strict=True)):
        path = draw(folder, name, index, [SHOWN[show], MODALS[modal]])
        text, finding = TEXTS[ask]
        more = {"source": source} if source else {}
        rows.append(Row(path, text, BRAIN, ask, f"{name}{index}", (finding,), more))
    return ImageTable(name, tuple(rows), 32, True)


def film(folder, name, wants, ratios, finding="cardiomegaly", sides=None, opacities=None):
    rows = []
    for index, (want, ratio) in enumerate(zip(wants, ratios, strict=True)):
        right, left = (100, 100) if opacities is None else opacities[index]
        path = draw(folder, name, index, [40, MODALS[FILM], round(100 * ratio), right, left])
        side = None if sides is None else sides[index]
        status = "absent" if sides is None and want < 0.5 else "present"
        found = Finding(finding=finding, side=side, status=status)
        more = {} if sides else {"cardiothoracic_ratio": f"{want:.3f}"}
        rows.append(Row(path, "chest X-ray", FILM, "", f"{name}{index}", (found,), more))
    return ImageTable(name, tuple(rows), 32, True)


def judged(tmp_path, synthetic, real):
    context = Context(real, synthetic, None, (), tmp_path, seed=1, repetitions=60)
    return measure(context, PhantomCLIP())


def get(outcome, metric, group="", scope=None):
    return next(
        f
        for f in outcome.figures
        if f.metric.startswith(metric) and f.group == group and scope in (None, f.scope)
    )


CLASSES = ["glioma", "meningioma", "nothing"] * 30


@pytest.fixture
def real(tmp_path):
    return brain(tmp_path, "real", CLASSES, CLASSES)


def test_perfect_agreement_is_perfect_and_equals_its_floor(tmp_path, real) -> None:
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, CLASSES), real)
    for metric, value in {
        "presence accuracy": 1.0,
        "modality agreement": 1.0,
        "CLIP score": 100.0,
        "CLIP margin": 100.0,
        "right caption fits best": 1.0,
    }.items():
        figure = get(outcome, metric)
        assert figure.value == figure.floor == pytest.approx(value)
        assert (figure.n, figure.n_real, figure.better) == (90, 90, "higher")
    for metric in ("sensitivity", "specificity", "presence accuracy"):
        assert get(outcome, metric, "glioma").value == 1.0
        # All right on few images is no proof of never being wrong.
        assert get(outcome, metric, "glioma").low < 1.0 == get(outcome, metric, "glioma").high
    assert get(outcome, "sensitivity", "glioma").n == 30
    assert get(outcome, "specificity", "glioma").n == 60
    assert all(d.value == 0 and d.underpowered for d in outcome.differences)


def test_swapped_images_lower_every_figure_below_its_floor(tmp_path, real) -> None:
    generator = np.random.default_rng(0)
    shows = [s if generator.random() < 0.3 else "nothing" for s in CLASSES]
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, shows), real)
    for metric in ("presence accuracy", "CLIP score", "CLIP margin", "right caption fits best"):
        figure = get(outcome, metric)
        assert figure.value < figure.floor and figure.high < figure.floor
        assert figure.low <= figure.value <= figure.high
    assert get(outcome, "sensitivity", "glioma").value < 0.6
    assert get(outcome, "specificity", "glioma").value == 1.0
    assert get(outcome, "modality agreement").value == 1.0
    gap = next(d for d in outcome.differences if d.metric == "presence accuracy")
    assert gap.value < 0 and gap.high < 0 and not gap.underpowered


def test_findings_shown_to_those_who_did_not_ask_lower_specificity(tmp_path, real) -> None:
    shows = [s if s != "nothing" else "glioma" for s in CLASSES]
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, shows), real)
    assert get(outcome, "sensitivity", "glioma").value == 1.0
    figure = get(outcome, "specificity", "glioma")
    assert figure.value == 0.5 and figure.low < 0.5 < figure.high


def test_an_image_of_another_modality_is_wrong_whatever_was_asked(tmp_path, real) -> None:
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, CLASSES, modal="OCT"), real)
    assert get(outcome, "modality agreement").value == 0.0
    assert get(outcome, "presence accuracy").value == 0.0


def test_fewer_than_thirty_are_not_measured(tmp_path, real) -> None:
    few = CLASSES[:87]
    outcome = judged(tmp_path, brain(tmp_path, "s", few, few), real)
    figure = get(outcome, "sensitivity", "glioma")
    assert figure.value is None and "29 images, 30 are needed" in figure.note
    assert "30 of each" in get(outcome, "presence accuracy", "glioma").note
    assert get(outcome, "sensitivity", "brain tumor").value == 1.0


def test_few_real_images_leave_a_figure_without_floor(tmp_path) -> None:
    real = brain(tmp_path, "real", CLASSES[:30], CLASSES[:30])
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, CLASSES), real)
    figure = get(outcome, "presence accuracy", "glioma")
    assert figure.value == 1.0 and figure.floor is None and "no floor" in figure.note


def test_findings_are_compared_within_a_source(tmp_path, real) -> None:
    alien = brain(tmp_path, "alien", ["glioma"] * 30, ["nothing"] * 30, source="elsewhere")
    both = ImageTable("real", (*real.rows, *alien.rows), 32, True)
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, CLASSES), both)
    figure = get(outcome, "sensitivity", "glioma")
    assert figure.floor == 1.0 and figure.n_real == 30


def test_same_seed_same_figures(tmp_path, real) -> None:
    synthetic = brain(tmp_path, "s", CLASSES, CLASSES[1:] + CLASSES[:1])
    assert judged(tmp_path, synthetic, real) == judged(tmp_path, synthetic, real)


def test_heart_follows_the_ratio_asked_or_not(tmp_path) -> None:
    generator = np.random.default_rng(2)
    wants = np.round(generator.uniform(0.4, 0.6, 120), 3)
    obeying = film(tmp_path, "o", wants, wants + generator.normal(0, 0.01, 120))
    ignoring = film(tmp_path, "i", wants, 0.45 + generator.normal(0, 0.03, 120))
    real = film(tmp_path, "r", wants[:40], wants[:40] + generator.normal(0, 0.02, 40))
    found = {}
    for name, synthetic in (("obeying", obeying), ("ignoring", ignoring)):
        outcome = judged(tmp_path, synthetic, real)
        found[name] = outcome
        for metric in ("Spearman", "slope", "mean absolute error"):
            figure = get(outcome, f"cardiothoracic ratio, {metric}")
            assert figure.low < figure.value < figure.high and figure.floor is not None
    rank = {k: get(o, "cardiothoracic ratio, Spearman") for k, o in found.items()}
    assert rank["obeying"].low > 0.9 and rank["ignoring"].low < 0 < rank["ignoring"].high
    assert get(found["obeying"], "cardiothoracic ratio, slope").value == pytest.approx(1, abs=0.1)
    assert get(found["obeying"], "cardiothoracic ratio, mean").value < 0.02
    gap = {k: o.differences[-1] for k, o in found.items()}
    assert gap["obeying"].first == "cardiomegaly asked" and gap["obeying"].low > 0.05
    assert gap["ignoring"].underpowered
    bins = [f for f in found["obeying"].figures if f.group.startswith("asked")]
    means = [f.value for f in bins]
    assert len(bins) == 4 and means == sorted(means) and all(f.n >= 30 for f in bins)
    picture = found["obeying"].pictures[0]
    assert Image.open(tmp_path / picture.file).size[0] > 300


def test_a_score_above_real_images_is_called_exaggerated(tmp_path) -> None:
    shows = [s if index % 4 else "pituitary tumor" for index, s in enumerate(CLASSES)]
    real = brain(tmp_path, "real", CLASSES, shows)
    outcome = judged(tmp_path, brain(tmp_path, "s", CLASSES, CLASSES), real)
    figure = get(outcome, "CLIP score")
    assert figure.value > figure.floor_high and "exaggerated" in figure.note
    level = get(judged(tmp_path, real, real), "CLIP score")
    assert "exaggerated" not in level.note


def test_hearts_all_of_one_size_have_no_correlation(tmp_path) -> None:
    wants = np.linspace(0.4, 0.6, 40)
    same = film(tmp_path, "s", wants, np.full(40, 0.45))
    outcome = judged(tmp_path, same, same)
    figure = get(outcome, "cardiothoracic ratio, Spearman")
    assert figure.value is None and "not defined" in figure.note
    assert "not defined" in outcome.pictures[0].caption
    assert get(outcome, "cardiothoracic ratio, slope").value == pytest.approx(0.0, abs=1e-9)


def test_films_that_cannot_be_measured_are_counted_not_guessed(tmp_path) -> None:
    wants = np.linspace(0.4, 0.6, 50)
    measured = np.where(np.arange(50) < 15, 0.0, wants)
    outcome = judged(
        tmp_path, film(tmp_path, "s", wants, measured), film(tmp_path, "r", wants, wants)
    )
    figure = get(outcome, "cardiothoracic ratio, Spearman")
    assert figure.n == 35 and "35 of 50 films measurable" in figure.note
    share = get(outcome, "heart measurable")
    assert share.value == 0.7 and share.floor == 1.0 and share.low < 0.7 < share.high
    assert get(outcome, "lungs measurable").value == 1.0


def test_opacity_on_the_asked_side_and_on_the_other(tmp_path) -> None:
    sides = ["right", "left"] * 30
    ratios = [0.45] * 60
    true = [(200, 100) if side == "right" else (100, 200) for side in sides]
    drawn = {
        "right": film(tmp_path, "a", ratios, ratios, "pneumonia", sides, true),
        "wrong": film(tmp_path, "b", ratios, ratios, "pneumonia", sides, true[1:] + true[:1]),
    }
    unsided = film(tmp_path, "r", ratios, ratios)
    for name, table in drawn.items():
        outcome = judged(tmp_path, table, unsided)
        figure = get(outcome, "side accuracy")
        assert figure.value == float(name == "right") and figure.n == 60
        assert figure.floor is None and "gives no side" in figure.note
        gap = next(d for d in outcome.differences if "right lung minus" in d.metric)
        assert (gap.low > 0) if name == "right" else (gap.high < 0)
    outcome = judged(tmp_path, drawn["right"], drawn["right"])
    assert get(outcome, "side accuracy").floor == 1.0


def row(*findings, modal=FILM, **more):
    return Row("x.png", "t", modal, findings=findings, more=more)


def test_what_a_row_asks_of_a_finding() -> None:
    bacterial = row(Finding(finding="bacterial pneumonia"))
    assert asked(bacterial, "pneumonia") == asked(bacterial, "lung opacity") == "present"
    assert asked(bacterial, "clear lungs") == "absent"
    assert asked(bacterial, "viral pneumonia") is None
    assert asked(bacterial, "viral pneumonia", {"bacterial pneumonia"}) == "absent"
    assert asked(row(Finding(finding="clear lungs")), "COVID-19 pneumonia") == "absent"
    assert asked(row(Finding(finding="normal chest")), "cardiomegaly") == "absent"
    assert asked(row(Finding(finding="pneumonia", status="absent")), "viral pneumonia") == "absent"
    assert asked(row(Finding(finding="viral pneumonia", status="absent")), "pneumonia") is None
    assert asked(row(Finding(finding="pneumonia", status="uncertain")), "pneumonia") is None


def test_what_a_row_asks_of_side_and_size() -> None:
    left = Finding(finding="pneumonia", side="left")
    assert asked_side(row(left)) == "left"
    assert asked_side(row(left, Finding(finding="lung opacity"))) == "left"
    assert asked_side(row(left, Finding(finding="lung opacity", side="right"))) is None
    assert asked_side(row(Finding(finding="pneumothorax", side="left"))) is None
    assert asked_side(row(Finding(finding="pneumonia", side="bilateral"))) is None
    target = Measurement(
        name="cardiothoracic ratio", value=0.4, expected=(0.57, 0.63), check="request"
    )
    assert asked_ratio(row(Finding(finding="cardiomegaly", measurements=[target]))) == 0.6
    assert asked_ratio(row(Finding(finding="cardiomegaly"), cardiothoracic_ratio="0.52")) == 0.52
    assert asked_ratio(row(Finding(finding="cardiomegaly"), cardiothoracic_ratio="large")) is None


def test_captions_are_set_against_contrary_ones_of_their_source(real) -> None:
    first = {r.label: r for r in real.rows[:3]}
    assert caption(key_of(first["glioma"])) == "brain MRI, glioma"
    assert caption(key_of(first["nothing"])) == "brain MRI, no brain tumor"
    assert contrary(first["glioma"], first["meningioma"])
    assert contrary(first["glioma"], first["nothing"])
    any_tumor = row(Finding(finding="brain tumor"), modal=BRAIN)
    assert not contrary(first["glioma"], any_tumor) and not contrary(any_tumor, first["glioma"])
    against = contrasts(real, real.rows)
    assert set(against[key_of(first["glioma"])]) == {
        "brain MRI, meningioma",
        "brain MRI, no brain tumor",
    }
    assert against[key_of(first["nothing"])] == ["brain MRI, glioma", "brain MRI, meningioma"]


def test_presence_figures_agree_with_scikit_learn() -> None:
    from sklearn.metrics import balanced_accuracy_score, recall_score

    generator = np.random.default_rng(4)
    wanted, seen_there = generator.integers(0, 2, (2, 200))
    codes = 2.0 * wanted + (wanted == seen_there)
    assert sensitivity(codes) == pytest.approx(recall_score(wanted, seen_there))
    assert specificity(codes) == pytest.approx(recall_score(wanted, seen_there, pos_label=0))
    unknown = np.append(codes, np.nan)
    expected = balanced_accuracy_score(wanted, seen_there)
    assert presence_accuracy(unknown) == pytest.approx(expected)


def test_response_statistics_and_bins() -> None:
    x = np.linspace(0, 1, 50)
    assert spearman(np.stack([x, x**3], 1)) == pytest.approx(1.0)
    assert slope(np.stack([x, 2 * x + 1], 1)) == pytest.approx(2.0)
    assert np.isnan(slope(np.stack([0 * x, x], 1)))
    bins = equal_bins(np.repeat([0.4, 0.5, 0.6], [40, 35, 10]), 6)
    assert [(low, high, len(chosen)) for low, high, chosen in bins] == [
        (0.4, 0.4, 40),
        (0.5, 0.6, 45),
    ]


def test_unknown_findings_are_warned_of(tmp_path, real) -> None:
    rows = [Row(r.path, r.text, r.modal, group=r.group) for r in real.rows]
    silent = ImageTable("synthetic", tuple(rows), 32, True)
    outcome = judged(tmp_path, silent, real)
    assert outcome.warnings == [
        "90 of 90 texts of the synthetic table name no known finding: these images count by their "
        "modality and CLIP score only"
    ]
    assert get(outcome, "presence accuracy").value is None
    assert alignment.READER in {f.scorer for f in outcome.figures}


def test_bundled_scorers_run_and_too_few_images_give_no_figure(tmp_path, monkeypatch) -> None:
    monkeypatch.undo()
    generator = np.random.default_rng(0)
    rows = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        modal, finding = ((FILM, "pneumonia"), (BRAIN, "glioma"))[index % 2]
        rows.append(Row(path, f"{modal}, {finding}", modal, findings=(Finding(finding=finding),)))
    few = ImageTable("few", tuple(rows), 64, False)
    outcome = measure(Context(few, few, None, (), tmp_path, repetitions=5))
    assert {f.value for f in outcome.figures} == {None} and not outcome.differences
    scorers = {f.scorer for f in outcome.figures}
    assert scorers >= {"medgen evaluation CLIP", "medgen evaluation reader"}
    assert all("30" in f.note for f in outcome.figures)

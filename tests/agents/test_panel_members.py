"""How the panel puts its members together: parts, disagreement, thresholds, surveys."""

from types import SimpleNamespace

import numpy as np
import pytest

from medgen.agents.verifier import Abstain, Measured, Panel
from medgen.agents.verifier import anatomy_checks as anatomy_module
from medgen.agents.verifier import checks as checks_module
from medgen.agents.verifier import panel as panel_module
from medgen.agents.verifier.anatomy_checks import (
    AnatomyCheck,
    EyeSideCheck,
    anatomy_measurements,
    anatomy_rejections,
    leaves_lungs_clear,
)
from medgen.agents.verifier.cards import (
    AnatomyFigures,
    AuditEntry,
    Limits,
    anatomy_figures,
    audit,
    reader_card,
    rules,
)
from medgen.agents.verifier.checks import ReaderCheck
from medgen.agents.verifier.open_clip_margin import captions
from medgen.agents.verifier.panel import conclude, judge
from medgen.data.dataset_stats import kind_of
from medgen.measure.anatomy import Anatomy
from medgen.measure.anatomy_card import (
    anatomy_cards,
    finding_figures,
    rejected_real_images,
)
from medgen.records import Finding, Measurement, Plan

ENTRY = {
    "value": "fine_contrast",
    "more": False,
    "measurable": True,
    "intercept": 4.0,
    "slope": -2.0,
    "weight": 0.7,
    "with_it": 48,
    "without_it": 60,
    "accuracy": "AUC 0.90 (0.85-0.95)",
}
FIGURES = AnatomyFigures.model_validate(
    {
        "source": "test",
        "values": {"Fundus": {"disc_count": {"range": [1, 1], "images": 9, "abstained": 0}}},
        "findings": {
            "Fundus": {
                "cataract": [ENTRY],
                "hard exudates": [{**ENTRY, "measurable": False, "reason": "AUC 0.56 is too low"}],
            }
        },
        "sides": {
            "Fundus": {
                "value": "eye_side",
                "right": 1,
                "share": 0.97,
                "interval": [0.9, 0.99],
                "answered": 100,
                "asked": 120,
                "accuracy": "97 of 100",
            }
        },
        "rejections": {
            "Fundus": {
                "disc_count": {
                    "expected": [1, 1],
                    "rejects": True,
                    "accuracy": "0 of 185 real images rejected, 0.000-0.020, held out",
                }
            },
            "Chest X-ray": {
                "lung_outline_doubt": {
                    "expected": [0, 0.2],
                    "rejects": True,
                    "clear_lungs": True,
                    "accuracy": "1 of 100 real normal images rejected, 0.000-0.050, held out",
                }
            },
        },
    }
)


@pytest.fixture(autouse=True)
def known_figures(monkeypatch):
    monkeypatch.setattr(anatomy_module, "anatomy_figures", lambda: FIGURES)


class Seen:
    def __init__(self, missing=(), **values):
        self.read = Anatomy(values, list(missing))

    def anatomy(self, modality):
        return self.read


class Says:
    holds = False

    def __init__(self, name, probability, **options):
        self.name, self.probability, self.options = name, probability, options

    def covers(self, modality, finding):
        return True

    def judge(self, evidence, finding, plan):
        measurement = Measurement(name=self.name, value=1.0, check=self.name)
        return Measured([measurement], self.probability, 0.5, **self.options)


def fundus(name="cataract", **options):
    finding = Finding(finding=name, **options)
    return finding, Plan(prompt=name, modality="Fundus", findings=[finding])


def look(evidence, checks, **options):
    finding, plan = fundus(**options)
    return judge(evidence, finding, plan, checks)


def test_value_speaks_for_and_against_a_finding_and_says_what_to_change() -> None:
    hazy = look(Seen(fine_contrast=1.0), [AnatomyCheck()])
    assert hazy.finding.verdict == "confirmed" and hazy.corrections == []
    clear = look(Seen(fine_contrast=3.5), [AnatomyCheck()])
    assert clear.finding.verdict == "contradicted"
    assert "fine contrast 3.50" in clear.corrections[0].text
    assert "cataract needs <=" in clear.corrections[0].text
    (measured,) = clear.finding.measurements
    assert measured.unit == "grey levels" and measured.accuracy == ENTRY["accuracy"]
    absent = look(Seen(fine_contrast=3.5), [AnatomyCheck()], status="absent")
    assert absent.finding.verdict == "confirmed"
    low, high = absent.finding.measurements[0].expected
    assert high is None and low <= 3.5


def test_value_that_tells_too_little_abstains_with_its_figure() -> None:
    judged = look(Seen(bright_spots=0.3), [AnatomyCheck()], name="hard exudates")
    assert judged.finding.verdict == "abstain" and judged.finding.measurements == []
    assert judged.abstentions == ["hard exudates: anatomy (fine contrast): AUC 0.56 is too low"]


def test_wrong_eye_contradicts_whatever_else_is_confirmed() -> None:
    checks = [Says("classifier", 0.95), EyeSideCheck()]
    right = look(Seen(eye_side=1.0), checks, side="right")
    assert right.finding.verdict == "confirmed"
    wrong = look(Seen(eye_side=-1.0), checks, side="right")
    assert wrong.finding.verdict == "contradicted"
    assert "as in a left eye, a right eye was asked" in wrong.corrections[0].text
    assert wrong.disagreements  # the classifier confirms, the eye contradicts


def test_right_eye_alone_confirms_nothing_and_wrong_eye_alone_contradicts() -> None:
    right = look(Seen(eye_side=1.0), [EyeSideCheck()], side="right")
    assert right.finding.verdict == "abstain" and right.probability == 0.5
    assert look(Seen(eye_side=-1.0), [EyeSideCheck()], side="right").finding.verdict == (
        "contradicted"
    )


def test_eye_that_cannot_be_seen_holds_the_confirmation_back() -> None:
    unseen = Seen(["eye side: no disc found"])
    judged = look(unseen, [Says("classifier", 0.95), EyeSideCheck()], side="left")
    assert judged.finding.verdict == "abstain" and judged.probability == 0.5
    against = look(unseen, [Says("classifier", 0.05), EyeSideCheck()], side="left")
    assert against.finding.verdict == "contradicted"
    assert look(unseen, [Says("classifier", 0.95), EyeSideCheck()]).finding.verdict == "confirmed"


def test_eye_is_not_asked_of_without_a_side_and_abstains_without_a_disc() -> None:
    judged = look(Seen(eye_side=1.0), [EyeSideCheck()])
    assert judged.abstentions == ["cataract: no check for it in Fundus"]
    unseen = look(Seen(["eye side: no disc found"]), [EyeSideCheck()], side="left")
    assert unseen.abstentions == ["cataract: eye side: eye side: no disc found"]


def test_sets_differ_in_how_sure_they_must_be() -> None:
    limits = rules().thresholds
    assert limits["strict"].confirm > limits["lenient"].confirm
    assert limits["strict"].false_accepts < limits["balanced"].false_accepts
    finding, plan = fundus()
    sure = (limits["strict"].confirm + limits["lenient"].confirm) / 2
    said = [Says("classifier", sure)]
    strict = judge(Seen(), finding, plan, said, limits["strict"])
    lenient = judge(Seen(), finding, plan, said, limits["lenient"])
    assert (strict.finding.verdict, lenient.finding.verdict) == ("abstain", "confirmed")


def test_members_within_error_do_not_count_as_disagreeing() -> None:
    finding, plan = fundus()
    assert judge(Seen(), finding, plan, [Says("a", 0.9), Says("b", 0.5)]).disagreements == []
    (line,) = judge(Seen(), finding, plan, [Says("a", 0.9), Says("b", 0.1)]).disagreements
    assert line == "cataract: members disagree (as asked: a 0.90, b 0.10)"


def test_necessary_parts_hold_the_whole_down() -> None:
    limits = Limits(confirm=0.6, contradict=0.4, false_accepts=0.1, calibration="")
    part = Measured([], 0.2, 1.0, necessary=True)
    assert conclude([Measured([], 0.9, 1.0), part], limits) == pytest.approx(0.2)
    assert conclude([part], limits) == pytest.approx(0.2)
    dense = Measured([], 0.9, 1.0, unspecific=True)
    assert conclude([dense], limits) == 0.5
    assert conclude([dense, Measured([], 0.9, 1.0)], limits) == pytest.approx(0.9)
    assert conclude([Measured([], 0.1, 1.0, unspecific=True)], limits) == pytest.approx(0.1)
    assert conclude([Measured([], 0.9, 1.0, advisory=True)], limits) == 0.5


def test_classifier_that_reads_the_source_abstains_on_presence(monkeypatch) -> None:
    heads = {"glioma": 0.9, "meningioma": 0.05, "pituitary tumor": 0.03, "no brain tumor": 0.02}
    evidence = SimpleNamespace(reading=SimpleNamespace(heads={"brain_tumor": heads}))
    finding = Finding(finding="glioma")
    plan = Plan(prompt="glioma", modality="Brain MRI", findings=[finding])
    for reads_source, kind in ((True, Abstain), (False, Measured)):
        entry = AuditEntry(reads_source=reads_source, note="AUC whole 0.98, centre hidden 0.90")
        monkeypatch.setattr(checks_module, "audit", lambda e=entry: {"Brain MRI": {"glioma": [e]}})
        answer = ReaderCheck().judge(evidence, finding, plan)
        assert isinstance(answer, kind)
        if isinstance(answer, Abstain):
            assert "reads the source" in answer.reason and "centre hidden 0.90" in answer.reason


def test_audit_has_a_word_on_every_finding_of_the_readers_card() -> None:
    for modality, findings in reader_card().findings.items():
        for finding, entries in findings.items():
            assert len(audit()[modality][finding]) == len(entries), (modality, finding)


def test_anatomy_is_told_with_the_range_of_real_images() -> None:
    read = Anatomy({"disc_count": 2.0, "disc_x": 0.7})
    counted, placed = anatomy_measurements(read, "Fundus")
    assert counted.expected == (1, 1) and counted.unit == "discs"
    assert placed.expected is None and placed.accuracy is None


@pytest.mark.parametrize(
    ("asked", "clear"),
    [
        ([("cardiomegaly", "present")], True),
        ([("cardiomegaly", "present"), ("pneumonia", "absent")], True),
        ([("cardiomegaly", "present"), ("pleural effusion", "present")], False),
        ([("pneumonia", "uncertain")], False),
        ([], False),
    ],
)
def test_lungs_are_to_be_clear_where_nothing_in_them_was_asked(asked, clear) -> None:
    findings = [Finding(finding=name, status=status) for name, status in asked]
    plan = Plan(prompt="x", modality="Chest X-ray", findings=findings)
    assert leaves_lungs_clear(plan) is clear


def test_washed_out_lungs_reject_only_where_they_are_to_be_clear() -> None:
    hazy = Anatomy({"lung_outline_doubt": 0.31})
    (line,) = anatomy_rejections(hazy, "Chest X-ray", clear_lungs=True)
    assert line.startswith("lung outline doubt: 0.31 share of the lungs, 0 to 0.2 expected (1 of")
    assert kind_of(line) == "lung outline doubt: N share of the lungs, N to N expected"
    assert anatomy_rejections(hazy, "Chest X-ray") == []


def test_a_hazy_film_is_likely_as_long_as_real_films_are_as_hazy(monkeypatch) -> None:
    monkeypatch.setattr(anatomy_module, "anatomy_figures", anatomy_figures)
    (told,) = anatomy_measurements(Anatomy({"lung_outline_doubt": 0.22}), "Chest X-ray")
    assert told.expected == anatomy_figures().values["Chest X-ray"]["lung_outline_doubt"].range


def test_clear_lungs_are_counted_on_real_images_of_their_labels() -> None:
    rows = {name: {"fold": "test", "labels": name[:-1]} for name in ("normal1", "normal2", "sick1")}
    table = {"normal1": {"x": 0.1}, "normal2": {"x": 0.9}, "sick1": {"x": 0.9}}
    card = {"expected": [0, 0.5], "clear_lungs": ["normal"]}
    entry = rejected_real_images(table, rows, "x", card)
    assert (entry["rejected"], entry["images"], entry["rejects"]) == (1, 2, False)
    assert entry["clear_lungs"] is True and "2 real normal images rejected" in entry["accuracy"]
    everyone = rejected_real_images(table, rows, "x", {"expected": [0, 0.5]})
    assert (everyone["rejected"], everyone["images"]) == (2, 3)


def test_count_that_no_real_image_has_rejects_where_it_is_reliable(monkeypatch) -> None:
    two, one, none = (Anatomy(v) for v in ({"disc_count": 2.0}, {"disc_count": 1.0}, {}))
    (line,) = anatomy_rejections(two, "Fundus")
    assert line.startswith("disc count: 2 discs, 1 expected (0 of 185 real images")
    assert kind_of(line) == "disc count: N discs, N expected"
    assert anatomy_rejections(one, "Fundus") == anatomy_rejections(none, "Fundus") == []
    assert anatomy_rejections(two, "OCT") == []
    known = FIGURES.rejections["Fundus"]["disc_count"].model_copy(update={"rejects": False})
    figures = FIGURES.model_copy(update={"rejections": {"Fundus": {"disc_count": known}}})
    monkeypatch.setattr(anatomy_module, "anatomy_figures", lambda: figures)
    assert anatomy_rejections(two, "Fundus") == []


@pytest.mark.parametrize(("doubled", "rejects"), [(0, True), (2, True), (3, False)])
def test_count_rejects_only_while_hardly_any_real_image_would_be(doubled, rejects) -> None:
    rows = {f"{place}": {"fold": "test" if place < 100 else "train"} for place in range(200)}
    table = {path: {"n": 2.0 if int(path) < doubled else 1.0} for path in rows}
    table["99"] = {}
    table["150"] = {"n": 0.0}
    found = rejected_real_images(table, rows, "n", {"expected": [1, 1]})
    assert (found["rejected"], found["images"], found["rejects"]) == (doubled, 100, rejects)
    assert found["train"] == "1 of 100"


def test_bundled_figures_fit_the_hand_written_cards() -> None:
    bundled = anatomy_figures()
    for modality, card in anatomy_cards().items():
        assert set(bundled.values[modality]) <= set(card["values"]), modality
        assert set(bundled.findings[modality]) == set(card["findings"]), modality
        for entries in bundled.findings[modality].values():
            for entry in entries:
                few = min(entry.positives, entry.negatives) < 30
                assert not (few and entry.measurable) and (entry.measurable or entry.reason)


def test_figures_come_from_one_source_and_the_right_direction() -> None:
    draws = np.random.default_rng(0)
    spec = {"value": "v", "more": True, "source": "s", "with": ["ill"], "without": ["well"]}
    rows, table = {}, {}
    for place in range(400):
        ill = place % 2
        rows[f"{place}"] = {
            "source": "s" if place < 300 else "other",
            "labels": "ill" if ill else "well",
            "fold": "test" if place % 3 == 0 else "train",
            "group": str(place),
            "view": "",
        }
        table[f"{place}"] = {"v": draws.normal(2.0 * ill, 1.0)}
    good = finding_figures(spec, table, rows)
    assert good["measurable"] and good["slope"] > 0
    assert good["with_it"] + good["without_it"] == 100
    told = finding_figures({**spec, "only_told": "it read the levels"}, table, rows)
    assert not told["measurable"] and told["reason"] == "it read the levels"
    wrong = finding_figures({**spec, "more": False}, table, rows)
    assert not wrong["measurable"] and wrong["auc"] == pytest.approx(1 - good["auc"], abs=1e-3)


def test_captions_set_a_finding_against_others_of_its_modality() -> None:
    texts = captions("glioma", "Brain MRI")
    assert len(texts) >= 2 and "glioma" in texts[0]
    unknown = captions("rib fracture", "Chest X-ray")
    assert len(unknown) == 1 + rules().alignment_contrasts
    assert all(text.startswith("Chest X-ray showing") for text in unknown)


@pytest.fixture(scope="module")
def panel():
    return Panel.load()


def brain_like():
    rows, columns = np.mgrid[0:256, 0:256]
    inside = ((columns - 128) / 80) ** 2 + ((rows - 128) / 105) ** 2 <= 1
    grey = np.where(inside, 90, 0) + np.random.default_rng(0).normal(0, 4, (256, 256))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_plan_that_asks_nothing_gets_what_was_found_and_no_acceptance(panel, monkeypatch) -> None:
    monkeypatch.setattr(checks_module, "audit", dict)
    critique = panel.verify(brain_like(), Plan(prompt="", modality="Brain MRI"))
    assert critique.accepted is not True and critique.corrections == []
    if not critique.rejections:
        assert critique.findings
    for finding in critique.findings:
        assert finding.measurements and finding.verdict in ("confirmed", "abstain")
        expected = finding.measurements[0].expected
        if finding.verdict == "confirmed" and finding.status == "absent":
            assert expected is not None and expected[1] is not None
    assert {one.name for one in critique.anatomy} >= {"brain_area", "mirror_correlation"}


def fundus_with_two_discs():
    rows, columns = np.mgrid[0:256, 0:256]
    image = np.zeros((256, 256, 3), np.uint8)
    image[np.hypot(columns - 128, rows - 128) < 120] = (150, 80, 40)
    for x in (70, 186):
        image[np.hypot(columns - x, rows - 124) < 14] = (240, 200, 100)
    return image


def test_fundus_with_two_discs_is_rejected_by_the_panel(panel, monkeypatch) -> None:
    monkeypatch.setattr(anatomy_module, "anatomy_figures", anatomy_figures)
    critique = panel.verify(fundus_with_two_discs(), Plan(prompt="", modality="Fundus"))
    assert any(line.startswith("disc count: 2 discs, 1 expected") for line in critique.rejections)
    assert critique.accepted is False


@pytest.mark.parametrize(("finding", "clear"), [("cardiomegaly", True), ("pneumonia", False)])
def test_panel_holds_lungs_to_what_was_asked(panel, monkeypatch, finding, clear) -> None:
    told = []
    monkeypatch.setattr(panel_module, "anatomy_rejections", lambda *of: told.append(of[2]) or [])
    plan = Plan(prompt=finding, modality="Chest X-ray", findings=[Finding(finding=finding)])
    panel.verify(brain_like(), plan)
    assert told == [clear]

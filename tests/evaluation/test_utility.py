"""Images that carry their class must help a classifier, images that do not must not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medgen.evaluation import arms, classes, utility
from medgen.evaluation.context import Context
from medgen.evaluation.figures import OVERALL, Figure, Outcome
from medgen.evaluation.small_cnn import Budget, probabilities, train
from medgen.evaluation.tables import ImageTable, Row, read_table

SIZE = 32
QUICK = Budget(steps=50, batch=16, size=SIZE, seeds=2, learning_rate=5e-3)
# Where it matters which images are used, not how well they teach.
BRIEF = Budget(steps=8, batch=8, size=SIZE, seeds=1, learning_rate=5e-3)
KINDS = ("glioma", "meningioma", "no tumor")
PLACES = {"glioma": (10, 10), "meningioma": (20, 22), "no tumor": (-99, -99)}


def drawn(label: str, chance: np.random.Generator) -> np.ndarray:
    """A noisy body with a bright spot whose place tells the class."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    body = 70.0 * ((rows - 16) ** 2 + (columns - 16) ** 2 < 180)
    row, column = np.array(PLACES[label]) + chance.integers(-2, 3, 2)
    spot = 60 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 12)
    grey = 40 + body + spot + chance.normal(0, 25, (SIZE, SIZE))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def table(
    folder: Path,
    name: str,
    counts: dict[str, int],
    seed: int,
    labels: str = "true",
    modal: str = "Brain MRI",
    source: str = "here",
    per_group: int = 1,
) -> ImageTable:
    """A table of drawn images; `labels` may be "shuffled"."""
    chance = np.random.default_rng(seed)
    shown = [label for label, count in counts.items() for _ in range(count)]
    # Each class gets every label equally often: its pictures say nothing about it.
    cycle = [list(counts)[place % len(counts)] for place in range(len(shown))]
    told = cycle if labels == "shuffled" else shown
    (folder / name).mkdir(parents=True)
    records = []
    for place, (kind, label) in enumerate(zip(shown, told, strict=True)):
        file = f"{name}/{place}.png"
        Image.fromarray(drawn(kind, chance)).save(folder / file)
        group = f"{name}-{place // per_group}"
        records.append((file, f"a picture of {label}", modal, label, group, source))
    frame = pd.DataFrame(records, columns=["path", "text", "modal", "label", "group", "source"])
    frame.to_csv(folder / f"{name}.csv", index=False)
    return read_table(folder / f"{name}.csv", name)


def measured(
    folder: Path,
    synthetic: ImageTable,
    real: ImageTable,
    train_table: ImageTable | None,
    budget: Budget = BRIEF,
) -> Outcome:
    context = Context(real, synthetic, train_table, (), folder, seed=5, repetitions=40)
    return utility.measure(context, budget)


def figure(outcome: Outcome, metric: str, group: str, scope: str = OVERALL) -> Figure:
    (found,) = [
        one
        for one in outcome.figures
        if (one.metric, one.group, one.scope) == (metric, group, scope)
    ]
    return found


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The same real images against informative synthetic ones, and against mislabelled ones."""
    folder = tmp_path_factory.mktemp("utility")
    real = table(folder, "real", dict.fromkeys(KINDS, 36), 1, per_group=2)
    known = table(folder, "train", dict.fromkeys(KINDS, 40), 2)
    outcomes = {}
    for labels in ("true", "shuffled"):
        synthetic = table(folder, labels, dict.fromkeys(KINDS, 42), 3, labels=labels)
        outcomes[labels] = measured(folder, synthetic, real, known, QUICK)
    return outcomes


@pytest.mark.parametrize("metric", [arms.ACCURACY, arms.AREA])
def test_informative_images_teach_and_shuffled_labels_do_not(
    judged: dict[str, Outcome], metric: str
) -> None:
    chance = 1 / 3 if metric == arms.ACCURACY else 0.5
    good = figure(judged["true"], metric, arms.SYNTHETIC)
    bad = figure(judged["shuffled"], metric, arms.SYNTHETIC)
    assert good.low > chance + 0.2
    assert bad.value < good.value - 0.2
    assert good.floor == figure(judged["true"], metric, arms.REAL).value
    assert good.floor > chance + 0.2
    assert (good.n, good.n_real) == (120, 108)
    assert figure(judged["true"], metric, arms.REAL).n == 0


def test_the_difference_is_paired_and_told(judged: dict[str, Outcome]) -> None:
    def difference(name: str, first: str):
        (found,) = [
            one
            for one in judged[name].differences
            if (one.metric, one.first, one.scope) == (arms.ACCURACY, first, OVERALL)
        ]
        return found

    bad = difference("shuffled", arms.SYNTHETIC)
    assert bad.high < 0
    assert not bad.underpowered
    assert bad.second == arms.REAL
    same = difference("true", arms.BOTH)
    assert same.low <= same.value <= same.high
    # Paired: narrower than the two arms' intervals together would be.
    first = figure(judged["true"], arms.ACCURACY, arms.BOTH)
    second = figure(judged["true"], arms.ACCURACY, arms.REAL)
    assert same.high - same.low < (first.high - first.low) + (second.high - second.low)


def test_sensitivities_stand_beside_those_of_the_real_arm(judged: dict[str, Outcome]) -> None:
    values = [figure(judged["true"], arms.RECALL, f"{kind}, here", "Brain MRI") for kind in KINDS]
    accuracy = figure(judged["true"], arms.ACCURACY, arms.SYNTHETIC, "Brain MRI")
    assert np.mean([one.value for one in values]) == pytest.approx(accuracy.value)
    assert all(one.n_real == 36 and one.floor is not None for one in values)


def test_too_few_test_images_are_not_measured(tmp_path: Path) -> None:
    real = table(tmp_path, "real", {"glioma": 40, "no tumor": 3}, 1)
    known = table(tmp_path, "train", {"glioma": 40, "no tumor": 20}, 2)
    synthetic = table(tmp_path, "synthetic", {"glioma": 40, "no tumor": 40}, 3)
    outcome = measured(tmp_path, synthetic, real, known)
    assert all(one.value is None for one in outcome.figures)
    found = figure(outcome, arms.ACCURACY, "here", "Brain MRI")
    assert "no tumor 3 test, 20 training, 40 synthetic" in found.note


def test_training_images_join_by_cross_validation_where_tests_are_few(tmp_path: Path) -> None:
    counts = {"glioma": 6, "no tumor": 6}
    real = table(tmp_path, "real", counts, 1)
    known = table(tmp_path, "train", dict.fromkeys(counts, 40), 2, per_group=2)
    synthetic = table(tmp_path, "synthetic", dict.fromkeys(counts, 30), 3)
    (task,) = classes.tasks(real, synthetic, known, 0)
    assert isinstance(task, classes.Task)
    for group in set(task.test.groups):
        assert len(set(task.folds[task.test.groups == group])) == 1
    outcome = measured(tmp_path, synthetic, real, known)
    found = figure(outcome, arms.ACCURACY, arms.SYNTHETIC, "Brain MRI")
    assert found.n_real == 92
    assert "the generator has seen" in found.note
    assert figure(outcome, arms.ACCURACY, "").value is None


def test_sources_are_never_mixed(tmp_path: Path) -> None:
    first = table(tmp_path / "a", "real", {"glioma": 30, "meningioma": 5}, 1, source="one")
    second = table(tmp_path / "b", "real", {"meningioma": 30, "no tumor": 30}, 2, source="two")
    both = ImageTable("real", (*first.rows, *second.rows), SIZE, True)
    synthetic = table(tmp_path, "synthetic", dict.fromkeys(KINDS, 30), 3, source="")
    found = classes.tasks(both, synthetic, None, 0)
    assert [one.source for one in found] == ["one", "two"]
    assert isinstance(found[0], classes.Untestable)
    assert isinstance(found[1], classes.Task)
    assert found[1].classes == ("meningioma", "no tumor")
    assert {row.more["source"] for row in found[1].test.rows} == {"two"}


def test_patients_of_the_training_table_are_not_tested(tmp_path: Path) -> None:
    real = table(tmp_path, "real", dict.fromkeys(KINDS[:2], 31), 1)
    known = table(tmp_path, "train", dict.fromkeys(KINDS[:2], 31), 2)
    shared = ImageTable("train", (*known.rows[2:], *real.rows[:1]), SIZE, True)
    synthetic = table(tmp_path, "synthetic", dict.fromkeys(KINDS[:2], 30), 3)
    outcome = measured(tmp_path, synthetic, real, shared)
    assert "1 of 62 real images" in outcome.warnings[0]
    assert figure(outcome, arms.ACCURACY, arms.SYNTHETIC).n_real == 61


def test_without_train_only_the_synthetic_arm_is_measured(tmp_path: Path) -> None:
    real = table(tmp_path, "real", dict.fromkeys(KINDS[:2], 30), 1)
    synthetic = table(tmp_path, "synthetic", dict.fromkeys(KINDS[:2], 30), 3)
    outcome = measured(tmp_path, synthetic, real, None, QUICK)
    assert "--train" in outcome.warnings[0]
    assert figure(outcome, arms.ACCURACY, arms.SYNTHETIC).value > 0.7
    assert not outcome.differences
    assert not any(one.group.startswith(arms.REAL) for one in outcome.figures)


def test_labels_are_asked_for(tmp_path: Path) -> None:
    real = table(tmp_path, "real", {"glioma": 3}, 1)
    synthetic = table(tmp_path, "synthetic", {"glioma": 3}, 2)
    bare = ImageTable(
        "synthetic", tuple(type(r)(r.path, r.text, r.modal) for r in synthetic.rows), SIZE, True
    )
    outcome = measured(tmp_path, bare, real, None)
    assert any("class that was asked for" in warning for warning in outcome.warnings)
    assert [one.value for one in outcome.figures] == [None]


def test_scores_agree_with_scikit_learn(tmp_path: Path) -> None:
    real = table(tmp_path, "real", dict.fromkeys(KINDS, 30), 1)
    task = classes.Task("Brain MRI", "here", KINDS, real, None, real, 30)
    numbers = task.numbers(real)
    output = np.random.default_rng(0).dirichlet(np.ones(3), (1, len(real)))
    output[0, :, 0] += numbers == 0
    output /= output.sum(axis=2, keepdims=True)
    values = arms.values_of(
        task, {"arm": output}, numbers, np.arange(len(real)), np.zeros(1, dtype=int)
    )
    assert values["arm", arms.ACCURACY] == pytest.approx(
        balanced_accuracy_score(numbers, output[0].argmax(axis=1))
    )
    assert values["arm", arms.AREA] == pytest.approx(
        roc_auc_score(numbers, output[0], multi_class="ovr", average="macro")
    )


def test_training_repeats_itself_and_leaves_chance_alone() -> None:
    chance = np.random.default_rng(0)
    images = np.stack([drawn(kind, chance) for kind in KINDS for _ in range(8)])
    labels = np.repeat(np.arange(3), 8)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    runs = [probabilities(train(images, labels, 3, QUICK, seed), images[:5]) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    real = table(tmp_path, "real", dict.fromkeys(KINDS[:2], 30), 1)
    synthetic = table(tmp_path, "synthetic", dict.fromkeys(KINDS[:2], 40), 3)
    first, second = (measured(tmp_path, synthetic, real, None) for _ in range(2))
    assert first == second


def test_a_class_left_out_is_named_though_its_name_begins_as_anothers() -> None:
    def rows(name: str, **counts: int) -> ImageTable:
        listed = [
            Row(Path(f"{name}{label}{place}"), "", "OCT", label.replace("_", " "), f"{name}{place}")
            for label, count in counts.items()
            for place in range(count)
        ]
        return ImageTable(name, tuple(listed), SIZE, True)

    task = classes.tasks(
        rows("real", drusen=30, normal=30, normal_variant=4),
        rows("synthetic", drusen=30, normal=30, normal_variant=4),
        None,
        0,
    )[0]
    assert task.classes == ("drusen", "normal")
    assert task.left_out == "normal variant 4 test, 4 synthetic"

"""The arms of a utility task: trained on synthetic, on real, on both; scored on the same images.

All arms of a seed start from the same weights and take the same number of images a class. Their
scores are resampled together, by patient and by seed, so that differences are paired. Knows tasks
and the small network; writes no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medgen.evaluation.classes import Task
from medgen.evaluation.context import Context
from medgen.evaluation.figures import interval, resamples
from medgen.evaluation.small_cnn import Budget, probabilities, train
from medgen.evaluation.tables import ImageTable
from medgen.measure.statistics import auc, share_interval

SYNTHETIC = "trained on synthetic"
REAL = "trained on real"
BOTH = "trained on real and synthetic"
ACCURACY = "balanced accuracy"
AREA = "macro AUC"
RECALL = "sensitivity"
FAVOURED = (
    "cross-validated over real and training images, of which the generator has seen most: this "
    "favours the arms with synthetic images"
)
Values = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Score:
    """What the arms reached in one task, or on average over several.

    `values` maps (arm, metric) to the mean over seeds, `replicates` to its bootstrap values; the
    sensitivity of a class is the metric "sensitivity CLASS". `trained` and `tested` count the
    images of one training and the test images, `counts` the test images of a metric that has
    fewer; `note` says which they are.
    """

    scope: str
    source: str
    values: Values
    replicates: dict[tuple[str, str], np.ndarray]
    trained: int
    tested: int
    counts: dict[str, int]
    note: str
    held_out: bool

    def bounds(self, key: tuple[str, str]) -> tuple[float, float]:
        """95 % interval; Wilson's where all or none are right, which resampling cannot widen."""
        low, high = interval(self.replicates[key])
        if low == high and self.values[key] in (0, 1):
            count = self.counts.get(key[1], self.tested)
            return share_interval(round(self.values[key] * count), count)
        return low, high

    @property
    def arms(self) -> list[str]:
        """The arms that were trained."""
        return list(dict.fromkeys(arm for arm, _ in self.values))


def trainings(task: Task, budget: Budget) -> int:
    """How many classifiers a task needs."""
    if task.train is None:
        return budget.seeds
    folds = 1 if task.folds is None else int(task.folds.max()) + 1
    return budget.seeds * (1 + 2 * folds)


def score(context: Context, task: Task, budget: Budget, trained: Callable[[], None]) -> Score:
    """Train and test all arms of a task.

    Args:
        context: For chance, progress and repetitions.
        task: Classes and images.
        budget: Of every training.
        trained: Called after each training.
    """
    outputs = _predictions(context, task, budget, trained)
    numbers = task.numbers(task.test)
    chance = context.chance("utility", "samples", task.modal, task.source)
    samples = []
    for chosen in resamples(task.test.groups, chance, context.repetitions):
        seeds = chance.integers(0, budget.seeds, budget.seeds)
        samples.append(values_of(task, outputs, numbers, chosen, seeds))
    values = values_of(task, outputs, numbers, np.arange(len(numbers)), np.arange(budget.seeds))
    listed = ", ".join(task.classes)
    note = (
        f"{listed}" + (f" of {task.source}" if task.source else "") + f"; chance "
        f"{1 / len(task.classes):.2f}; {task.images_per_class} images a class in each arm (twice "
        "as many in the arm of both)"
    )
    note += f"; {FAVOURED}" if task.folds is not None else ""
    note += f"; left out: {task.left_out}" if task.left_out else ""
    return Score(
        scope=task.modal,
        source=task.source,
        values=values,
        replicates={key: np.array([one[key] for one in samples]) for key in values},
        trained=task.images_per_class * len(task.classes),
        tested=len(task.test),
        counts={
            f"{RECALL} {name}": int(np.sum(numbers == number))
            for number, name in enumerate(task.classes)
        },
        note=note,
        held_out=task.folds is None,
    )


def mean(scores: Sequence[Score], scope: str, over: str) -> Score:
    """The unweighted mean of several scores; arms and metrics that all of them have."""
    keys = [
        key
        for key in scores[0].values
        if key[1] in (ACCURACY, AREA) and all(key in one.values for one in scores)
    ]
    named = ", ".join(one.source or one.scope for one in scores)
    return Score(
        scope=scope,
        source="",
        values={key: float(np.mean([one.values[key] for one in scores])) for key in keys},
        replicates={key: np.mean([one.replicates[key] for one in scores], axis=0) for key in keys},
        trained=sum(one.trained for one in scores),
        tested=sum(one.tested for one in scores),
        counts={},
        note=f"mean over {len(scores)} {over}: {named}"
        + ("" if all(one.held_out for one in scores) else f"; {FAVOURED}"),
        held_out=all(one.held_out for one in scores),
    )


def _predictions(
    context: Context, task: Task, budget: Budget, trained: Callable[[], None]
) -> dict[str, np.ndarray]:
    """By arm, (seeds, n, classes) probabilities of the test images."""
    test, ours = (_Images(task, table, budget.size) for table in (task.test, task.synthetic))
    known = None if task.train is None else _Images(task, task.train, budget.size)
    folds = np.zeros(len(task.test), dtype=int) if task.folds is None else task.folds
    arms = (SYNTHETIC,) if known is None else (SYNTHETIC, REAL, BOTH)
    classes, per_class = len(task.classes), task.images_per_class
    outputs = {arm: np.zeros((budget.seeds, len(task.test), classes)) for arm in arms}
    for seed in range(budget.seeds):
        chance = context.chance("utility", "train", task.modal, task.source, str(seed))
        start = int(chance.integers(2**31))
        drawn, labels = ours.draw(per_class, chance)
        model = train(drawn, labels, classes, budget, start)
        outputs[SYNTHETIC][seed] = probabilities(model, test.pixels(np.arange(len(task.test))))
        trained()
        if known is None:
            continue
        for fold in np.unique(folds):
            held = np.flatnonzero(folds == fold)
            # Under cross-validation the training images are the test images of the other folds.
            real, real_labels = known.draw(
                per_class, chance, None if task.folds is None else folds != fold
            )
            for arm, images, numbers in (
                (REAL, real, real_labels),
                (BOTH, np.concatenate([real, drawn]), np.concatenate([real_labels, labels])),
            ):
                model = train(images, numbers, classes, budget, start)
                outputs[arm][seed, held] = probabilities(model, test.pixels(held))
                trained()
    return outputs


class _Images:
    """A task's images at the network's size, each read when first needed, and their classes."""

    def __init__(self, task: Task, table: ImageTable, size: int) -> None:
        self._table = replace(table, size=size)
        self._numbers = task.numbers(table)
        self._read: dict[int, np.ndarray] = {}

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """(n, S, S, 3) uint8 of some rows."""
        missing = [row for row in rows.tolist() if row not in self._read]
        self._read.update(zip(missing, self._table.images(missing), strict=True))
        return np.stack([self._read[row] for row in rows.tolist()])

    def draw(
        self, per_class: int, chance: np.random.Generator, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and class numbers of `per_class` images a class, none twice, where `allowed`."""
        free = np.ones(len(self._numbers), dtype=bool) if allowed is None else allowed
        rows = np.concatenate(
            [
                chance.choice(np.flatnonzero(free & (self._numbers == number)), per_class, False)
                for number in np.unique(self._numbers)
            ]
        )
        return self.pixels(rows), self._numbers[rows]


def values_of(
    task: Task,
    outputs: dict[str, np.ndarray],
    numbers: np.ndarray,
    chosen: np.ndarray,
    seeds: np.ndarray,
) -> Values:
    """Metrics of each arm on the chosen test images, averaged over the chosen seeds.

    NaN where a class has no image among the chosen.
    """
    inside = [numbers[chosen] == number for number in range(len(task.classes))]
    if not all(one.any() for one in inside):
        return {
            (arm, metric): float("nan")
            for arm in outputs
            for metric in (ACCURACY, AREA, *(f"{RECALL} {name}" for name in task.classes))
        }
    values: Values = {}
    for arm, output in outputs.items():
        part = output[seeds][:, chosen]
        named = part.argmax(axis=2)
        recalls = [float(np.mean(named[:, one] == number)) for number, one in enumerate(inside)]
        areas = [
            auc(run[one, number], run[~one, number])
            for run in part
            for number, one in enumerate(inside)
        ]
        values[arm, ACCURACY] = float(np.mean(recalls))
        values[arm, AREA] = float(np.mean(areas))
        for name, recall in zip(task.classes, recalls, strict=True):
            values[arm, f"{RECALL} {name}"] = recall
    return values

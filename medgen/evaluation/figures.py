"""What an evaluation says: one `Figure` a number, with its scorer, counts, interval and floor.

Every suite returns figures and nothing else; `report.py` turns them into pages. Knows no image,
no model and no metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from medgen.records import Record

Suite = Literal["fidelity", "diversity", "alignment", "privacy", "utility"]
SUITES: tuple[Suite, ...] = ("fidelity", "diversity", "alignment", "privacy", "utility")
OVERALL = "overall"
# Fewer images than this behind a class's figure, and it is not printed.
LEAST = 30


class Figure(Record):
    """One measured number.

    `scope` is a modality or "overall"; `group` narrows it to a finding, a class or an arm.
    `scorer` names what measured it: figures of different scorers are never compared. `low` and
    `high` bound the 95 % bootstrap interval. `n` counts the synthetic images behind the value,
    `n_real` the real ones. `floor` is the same metric on real images alone, at the same size,
    and `floor_of` says on which. `value` is null where the figure is not measurable; `note` says
    why, or what to beware of.
    """

    suite: Suite
    metric: str
    scope: str
    group: str = ""
    scorer: str
    better: Literal["lower", "higher"] | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=0)
    n_real: int = Field(default=0, ge=0)
    floor: float | None = None
    floor_low: float | None = None
    floor_high: float | None = None
    floor_of: str = ""
    note: str = ""


class Difference(Record):
    """A paired comparison: `value` is first minus second, with its 95 % bootstrap interval.

    `underpowered` is true where the interval is too wide to tell the difference from none.
    """

    suite: Suite
    metric: str
    scope: str
    first: str
    second: str
    value: float
    low: float
    high: float
    n: int
    underpowered: bool


class Picture(Record):
    """A picture that belongs to the report: a file beside it, and what it shows."""

    suite: Suite
    file: str
    caption: str


class Outcome(Record):
    """All that one suite found. `warnings` concern the whole suite, one line each."""

    figures: list[Figure] = Field(default_factory=list)
    differences: list[Difference] = Field(default_factory=list)
    pictures: list[Picture] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)


def unmeasured(
    suite: Suite, metric: str, scope: str, scorer: str, n: int, why: str, **more: object
) -> Figure:
    """A figure that is not printed, with the reason and the counts that stand in its way."""
    return Figure.model_validate(
        {
            "suite": suite,
            "metric": metric,
            "scope": scope,
            "scorer": scorer,
            "n": n,
            "note": f"not measurable: {why}",
            **more,
        }
    )


def resamples(
    clusters: np.ndarray, generator: np.random.Generator, repetitions: int
) -> Iterator[np.ndarray]:
    """Bootstrap samples of whole clusters, as image indices with repeats.

    Args:
        clusters: (n,) cluster of each image.
        generator: Source of chance.
        repetitions: How many samples.
    """
    _, inverse = np.unique(clusters, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    for _ in range(repetitions):
        drawn = generator.integers(0, len(members), len(members))
        yield np.concatenate([members[cluster] for cluster in drawn])


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    clusters: np.ndarray,
    generator: np.random.Generator,
    repetitions: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic, resampling whole clusters with replacement.

    Args:
        statistic: Maps (m,) image indices, with repeats, to a number; NaN where undefined.
        clusters: (n,) cluster of each image: a patient's group, or the prompt it was drawn from.
        generator: Source of chance.
        repetitions: Bootstrap samples.
        level: Coverage.

    Returns:
        (low, high); NaN where no sample defines the statistic. Source: Efron and Tibshirani 1993,
        chapter 13; Field and Welsh 2007 for clusters.
    """
    values = np.array([statistic(s) for s in resamples(clusters, generator, repetitions)])
    return interval(values, level)


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of a statistic's bootstrap values; NaN where none is finite."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)

"""Means over images with their 95 % intervals, beside the same mean over real images.

What the suites that judge images one by one share: which images hang together, when a figure has
too little behind it, and how it is written down. Knows no image and no scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medgen.evaluation.figures import (
    LEAST,
    OVERALL,
    Difference,
    Figure,
    Suite,
    bootstrap,
    unmeasured,
)
from medgen.measure.statistics import share_interval

# With fewer clusters than this a cluster bootstrap says little (Cameron, Gelbach and Miller 2008).
LEAST_CLUSTERS = 10
Better = Literal["lower", "higher"] | None


@dataclass(frozen=True)
class Sample:
    """Judged images: `values` (n,) float, NaN where not judged, and the `groups` (n,) they are of.

    `values` may also be (n, k), one column a question.
    """

    values: np.ndarray
    groups: np.ndarray

    def judged(self) -> Sample:
        """Only the images with a value, in at least one column."""
        known = np.isfinite(self.values)
        if known.ndim > 1:
            known = known.any(axis=1)
        return Sample(self.values[known], self.groups[known])

    def __len__(self) -> int:
        return len(self.values)


Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval, and what was resampled for it."""

    value: float
    low: float
    high: float
    note: str = ""


def average(values: np.ndarray) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def clusters_of(groups: np.ndarray, unit: str = "image") -> tuple[np.ndarray, str]:
    """What a bootstrap resamples: the groups, or single units where there are under ten groups."""
    count = len(np.unique(groups))
    if count >= LEAST_CLUSTERS or count == len(groups):
        return groups, ""
    plural = "s" if count != 1 else ""
    return (
        np.arange(len(groups)),
        f"resampled by {unit}: only {count} group{plural}",
    )


def estimate(
    sample: Sample,
    generator: np.random.Generator,
    repetitions: int,
    statistic: Statistic = average,
    unit: str = "image",
    share: bool = False,
) -> Estimate:
    """A statistic of the judged images with its cluster bootstrap interval.

    Of a share that is 0 or 1, where resampling shows no doubt, the interval is Wilson's over the
    clusters.
    """
    judged = sample.judged()
    clusters, note = clusters_of(judged.groups, unit)
    low, high = bootstrap(
        lambda indices: statistic(judged.values[indices]), clusters, generator, repetitions
    )
    value = statistic(judged.values)
    if share and low == high and value in (0.0, 1.0):
        count = len(np.unique(clusters))
        low, high = share_interval(round(value * count), count)
        low, high = min(low, value), max(high, value)
        note = joined(note, f"Wilson's interval of {count} {unit if note else 'group'}s")
    return Estimate(value, low, high, note)


def joined(*notes: str) -> str:
    """Remarks in one line, empty ones left out."""
    return "; ".join(note for note in notes if note)


@dataclass(frozen=True)
class Ruler:
    """How one suite writes its figures: suite, scorer, chance and bootstrap samples."""

    suite: Suite
    scorer: str
    generator: Callable[..., np.random.Generator]
    repetitions: int

    def figure(
        self,
        metric: str,
        scope: str,
        judged: Sample,
        real: Sample | None,
        *,
        group: str = "",
        better: Better = None,
        floor_of: str = "",
        note: str = "",
        statistic: Statistic = average,
        least: int = LEAST,
        unit: str = "image",
        share: bool = False,
        n: int | None = None,
        n_real: int | None = None,
    ) -> Figure:
        """A figure on the synthetic images with the same on real ones as its floor.

        Args:
            metric: What is measured.
            scope: A modality or "overall".
            judged: The synthetic images' values.
            real: The real images' values; None where there are none to compare with.
            group: A finding or class.
            better: Which way is better.
            floor_of: Which real images the floor is of.
            note: What to beware of.
            statistic: Maps values (with repeats) to the number.
            least: Fewer images (or values) than this and there is no figure (or no floor).
            unit: What one value belongs to.
            share: Whether the statistic is a share or a mean of shares, 0-1.
            n: Synthetic images behind the value, where that is not the number of values.
            n_real: Real images behind the floor, likewise.
        """
        known = judged.judged()
        count = len(known) if n is None else n
        reference = None if real is None else real.judged()
        count_real = (0 if reference is None else len(reference)) if n_real is None else n_real
        named = {"group": group, "better": better, "n_real": count_real}
        if min(len(known), count) < least:
            why = f"{count} images, {least} are needed"
            return unmeasured(
                self.suite, metric, scope, self.scorer, count, joined(why, note), **named
            )
        found = estimate(
            known,
            self.generator(metric, scope, group),
            self.repetitions,
            statistic,
            unit,
            share,
        )
        if not np.isfinite([found.value, found.low, found.high]).all():
            why = "it is not defined on these images"
            return unmeasured(
                self.suite, metric, scope, self.scorer, count, joined(why, note), **named
            )
        written = {
            "suite": self.suite,
            "metric": metric,
            "scope": scope,
            "scorer": self.scorer,
            "n": count,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            **named,
        }
        remarks = [note, found.note]
        if reference is not None and min(len(reference), count_real) >= least:
            floor = estimate(
                reference,
                self.generator(metric, scope, group, "real"),
                self.repetitions,
                statistic,
                unit,
                share,
            )
            written |= {
                "floor": floor.value,
                "floor_low": floor.low,
                "floor_high": floor.high,
                "floor_of": joined(floor_of, floor.note),
            }
        elif reference is not None:
            remarks.append(f"no floor: {count_real} real images, {least} are needed")
        return Figure.model_validate({**written, "note": joined(*remarks)})

    def difference(
        self,
        metric: str,
        scope: str,
        first: tuple[str, Sample],
        second: tuple[str, Sample],
        statistic: Statistic = average,
        least: int = LEAST,
    ) -> Difference | None:
        """First minus second with its interval; None where either has too little behind it.

        The two are different images, so their clusters are resampled independently.
        """
        (name, one), (other_name, other) = first, second
        one, other = one.judged(), other.judged()
        if min(len(one), len(other)) < least:
            return None
        clusters = [
            f"{side}|{cluster}"
            for side, sample in (("first", one), ("second", other))
            for cluster in clusters_of(sample.groups)[0]
        ]
        values = np.concatenate([one.values, other.values])
        is_first = np.arange(len(values)) < len(one)

        def gap(indices: np.ndarray) -> float:
            chosen = is_first[indices]
            return statistic(values[indices[chosen]]) - statistic(values[indices[~chosen]])

        low, high = bootstrap(
            gap,
            np.array(clusters),
            self.generator(metric, scope, "difference", name),
            self.repetitions,
        )
        return Difference(
            suite=self.suite,
            metric=metric,
            scope=scope,
            first=name,
            second=other_name,
            value=gap(np.arange(len(values))),
            low=low,
            high=high,
            n=len(values),
            underpowered=not (low > 0 or high < 0),
        )


def scopes(modals: Sequence[str]) -> list[str]:
    """What figures are given for: each modality, and overall where there are several."""
    names = sorted(set(modals))
    return [*names, OVERALL] if len(names) > 1 else names

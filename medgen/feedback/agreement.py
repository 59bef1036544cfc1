"""How far raters agree: Krippendorff's alpha (ordinal) and quadratic-weighted kappa.

Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), by the package of that name;
Cohen, Weighted kappa (1968), by scikit-learn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import get_args

import numpy as np

from medgen.feedback.records import Agreement, RaterPair, Rating, Scale, Source

RESAMPLES = 400
SEED = 0
SHARED = 2  # images with two raters, below which nothing is said of agreement
SHARED_FOR_INTERVAL = 10

Subject = tuple[str, str]


def agreements(
    ratings: Sequence[Rating], source: Source, modality: str | None = None
) -> list[Agreement]:
    """Agreement of the ratings of one source, for each scale in use."""
    return [
        _agreement(own, source, scale, modality)
        for scale in get_args(Scale)
        if (own := [one for one in ratings if one.scale == scale and one.source == source])
    ]


def _agreement(
    ratings: Sequence[Rating], source: Source, scale: Scale, modality: str | None
) -> Agreement:
    by_rater: dict[str, dict[Subject, int]] = defaultdict(dict)
    for one in ratings:
        by_rater[one.rater][one.image_sha256, one.prompt] = one.rating
    images = sorted({subject for own in by_rater.values() for subject in own})
    counts = np.zeros((len(images), scale), dtype=int)
    place = {subject: row for row, subject in enumerate(images)}
    for own in by_rater.values():
        for subject, rating in own.items():
            counts[place[subject], rating - 1] += 1
    shared = counts[counts.sum(axis=1) >= 2]
    result = Agreement(
        source=source,
        scale=scale,
        modality=modality,
        raters=len(by_rater),
        images=len(images),
        shared_images=len(shared),
        pairs=_kappas(by_rater, scale),
        why=_why_not(len(by_rater), shared),
    )
    if result.why is None:
        result.alpha = ordinal_alpha(shared)
        result.interval = _interval(shared)
    return result


def _why_not(raters: int, shared: np.ndarray) -> str | None:
    if raters < 2:
        return "one rater: agreement needs two"
    if len(shared) < SHARED:
        return f"{len(shared) or 'no'} image has two raters: agreement needs {SHARED}"
    if (shared.sum(axis=0) > 0).sum() < 2:
        return "all ratings are equal: agreement cannot be told from habit"
    return None


def ordinal_alpha(counts: np.ndarray) -> float:
    """Krippendorff's alpha for ordinal values.

    Args:
        counts: (images, scale) how many raters gave each image each rating; two ratings at least
            differ over all images.

    Returns:
        1 for full agreement, 0 for that of chance, below 0 for worse.
    """
    import krippendorff

    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="ordinal"))


def _interval(counts: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile bootstrap over images; None with too few, or too few that differ."""
    if len(counts) < SHARED_FOR_INTERVAL:
        return None
    generator = np.random.default_rng(SEED)
    alphas = []
    for _ in range(RESAMPLES):
        drawn = counts[generator.integers(len(counts), size=len(counts))]
        if (drawn.sum(axis=0) > 0).sum() >= 2:
            alphas.append(ordinal_alpha(drawn))
    if len(alphas) < RESAMPLES / 2:
        return None
    low, high = np.percentile(alphas, [2.5, 97.5])
    return float(low), float(high)


def _kappas(by_rater: dict[str, dict[Subject, int]], scale: int) -> list[RaterPair]:
    pairs = []
    for first, second in combinations(sorted(by_rater), 2):
        shared = sorted(by_rater[first].keys() & by_rater[second].keys())
        if len(shared) >= SHARED:
            a = [by_rater[first][subject] for subject in shared]
            b = [by_rater[second][subject] for subject in shared]
            pairs.append(
                RaterPair(raters=(first, second), images=len(shared), kappa=_kappa(a, b, scale))
            )
    return pairs


def _kappa(first: list[int], second: list[int], scale: int) -> float | None:
    """Quadratic-weighted kappa; None when both raters gave one and the same rating throughout."""
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return None
    labels = list(range(1, scale + 1))
    return float(cohen_kappa_score(first, second, labels=labels, weights="quadratic"))

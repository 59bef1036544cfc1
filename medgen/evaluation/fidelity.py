"""Fidelity: KID, FID, Inception Score, precision, recall, density and coverage.

Here is which images the metrics of `distances.py` are given. The real images are halved at random,
groups whole; one half is compared with as many synthetic images (the value) and with as many of
the other half (the floor), and again for other halvings, so that both are at one sample size.

The interval is a delete-half jackknife (Shao and Wu 1989; subsampling: Politis and Romano 1994):
half samples scatter about their mean as whole samples scatter about the truth. A bootstrap would
draw images twice, and twins break unbiased KID and nearest neighbours. Knows no pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from medgen.evaluation.context import Context, Encoder
from medgen.evaluation.distances import (
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbourhood_scores,
    settings,
)
from medgen.evaluation.extractors import Classifier
from medgen.evaluation.figures import LEAST, OVERALL, Difference, Figure, Outcome, unmeasured
from medgen.evaluation.tables import ImageTable
from medgen.measure.statistics import share_interval

KID, FID, FID_ALL, IS = "KID", "FID", "FID, all images", "Inception Score"
# Least and greatest possible value; an interval does not leave them.
RANGES: dict[str, tuple[float, float]] = {
    KID: (-np.inf, np.inf),
    FID: (0, np.inf),
    IS: (1, np.inf),
    "precision": (0, 1),
    "recall": (0, 1),
    "density": (0, np.inf),
    "coverage": (0, 1),
}
# What is a share of one side's images.
SHARES = ("precision", "recall", "coverage")
Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]
FLOOR_OF = "two halves of the real images, no group on both sides"


@dataclass(frozen=True)
class Halvings:
    """Scores of every halving, (halvings,) each: synthetic against a real half, real against real.

    `size` images were on each side; `share` is the largest share of a table that was drawn.
    """

    values: dict[str, np.ndarray]
    floors: dict[str, np.ndarray]
    size: int
    share: float


def all_metrics(classifier: Classifier | None) -> Score:
    """Every metric of (real features, other features), by name; Inception Score needs classes."""

    def score(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
        found = {KID: kernel_distance(real, other), FID: frechet_distance(real, other)}
        if classifier:
            found[IS] = inception_score(classifier.logits(other))
        return found | neighbourhood_scores(real, other)

    return score


def halve(groups: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves of (n,) groups; each group goes whole to the emptier half."""
    _, inverse = np.unique(groups, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    counts = [0, 0]
    for group in generator.permutation(len(members)):
        side = int(counts[1] < counts[0])
        sides[side].append(members[group])
        counts[side] += len(members[group])
    first, second = (
        np.concatenate(side) if side else np.zeros(0, dtype=np.int64) for side in sides
    )
    return first, second


def compare(
    real: np.ndarray,
    groups: np.ndarray,
    synthetic: np.ndarray,
    score: Score,
    generator: np.random.Generator,
    repetitions: int,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Halvings | int:
    """Score synthetic features against halves of the real ones, and those against each other.

    Args:
        real: (n, d) features.
        groups: (n,) groups of the real images; none is on both sides of a halving.
        synthetic: (m, d) features; drawn one by one, since their prompts are chosen, not sampled.
        score: What compares two sets.
        generator: Source of chance.
        repetitions: Halvings at most.
        tell: Told the halvings done and to do.

    Returns:
        The scores; or, where a half would have fewer than `LEAST` images, how many it would have.
    """
    rules = settings()
    splits = [halve(groups, generator) for _ in range(min(rules["halvings"], repetitions))]
    smallest = min(min(len(half) for half in split) for split in splits)
    size = min(smallest, len(synthetic) // 2, rules["most"])
    if size < LEAST:
        return size
    slow = size > rules["slow"]["images"] or min(real.shape[1], 2 * size) > rules["slow"]["width"]
    if slow:
        splits = splits[: rules["slow"]["halvings"]]
    values, floors = [], []
    for done, split in enumerate(splits, start=1):
        first, second = (real[generator.choice(half, size, replace=False)] for half in split)
        drawn = synthetic[generator.choice(len(synthetic), size, replace=False)]
        values.append(score(first, drawn))
        floors.append(score(first, second))
        tell(done, len(splits))
    share = max(size / len(real), size / len(synthetic))
    return Halvings(_columns(values), _columns(floors), size, share)


def scatter(values: np.ndarray, share: float) -> float:
    """Half the width of the 95 % interval of a mean over halvings that drew `share` of a table."""
    if len(values) < 2:
        return float("nan")
    inflation = share / (1 - share)
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) * np.sqrt(inflation))


def measure(context: Context) -> Outcome:
    """Fidelity of the synthetic images, for every extractor, modality and overall.

    Overall is the plain mean over the modalities that could be measured, so that a common
    modality does not drown a rare one; "FID, all images" overall is of the pooled tables, as
    publications have it.
    """
    outcome = Outcome()
    for encoder in context.encoders:
        figures, measured = _of_encoder(context, encoder)
        outcome.figures += figures
        outcome.differences += _differences(context, encoder, measured)
    if not context.real.grouped:
        outcome.warnings.append(
            "the real table has no group column: images of one patient may be on both sides of "
            "a halving, which makes the floors too low"
        )
    return outcome


def _of_encoder(context: Context, encoder: Encoder) -> tuple[list[Figure], dict[str, Halvings]]:
    score = all_metrics(encoder if isinstance(encoder, Classifier) else None)
    real = context.features(context.real, encoder)
    synthetic = context.features(context.synthetic, encoder)
    names = [name for name in RANGES if name != IS or isinstance(encoder, Classifier)]
    figures: list[Figure] = []
    measured: dict[str, Halvings] = {}

    def tell(scope: str) -> Callable[[int, int], None]:
        task = f"fidelity of {scope}, {encoder.name}"
        return lambda done, total: context.progress(task, done, total)

    for modal in context.synthetic.modals:
        ours, theirs = _rows(context.real, [modal]), _rows(context.synthetic, [modal])
        found = compare(
            real[ours],
            context.real.groups[ours],
            synthetic[theirs],
            score,
            context.chance("fidelity", modal),
            context.repetitions,
            tell(modal),
        )
        if isinstance(found, int):
            why = f"{found} images in the smallest half, real or synthetic; {LEAST} are needed"
            figures += [
                unmeasured(
                    "fidelity",
                    name,
                    modal,
                    _scorer(encoder, name),
                    len(theirs),
                    why,
                    n_real=len(ours),
                )
                for name in [*names, FID_ALL]
            ]
            continue
        measured[modal] = found
        figures += _figures(measured, [modal], modal, encoder, names, len(theirs), len(ours))
        figures.append(_whole(real[ours], synthetic[theirs], found, modal, encoder))
    if not measured:
        why = "no modality has enough images"
        figures += [
            unmeasured("fidelity", name, OVERALL, _scorer(encoder, name), len(synthetic), why)
            for name in [*names, FID_ALL]
        ]
        return figures, measured
    ours = _rows(context.real, list(measured))
    theirs = _rows(context.synthetic, list(measured))
    left_out = [modal for modal in context.synthetic.modals if modal not in measured]
    without = f"; not in it: {', '.join(left_out)}" if left_out else ""
    figures += _figures(
        measured, list(measured), OVERALL, encoder, names, len(theirs), len(ours), without
    )
    pooled = compare(
        real[ours],
        context.real.groups[ours],
        synthetic[theirs],
        lambda first, other: {FID: frechet_distance(first, other)},
        context.chance("fidelity", OVERALL),
        min(context.repetitions, settings()["slow"]["halvings"]),
        tell(OVERALL),
    )
    assert isinstance(pooled, Halvings), "the union of measurable modalities is measurable"
    figures.append(_whole(real[ours], synthetic[theirs], pooled, OVERALL, encoder, without))
    return figures, measured


def _differences(
    context: Context, encoder: Encoder, measured: dict[str, Halvings]
) -> list[Difference]:
    """How far synthetic images are from real ones beyond what real ones are, halving by halving."""
    found = []
    for modal, part in measured.items():
        for name in (KID, FID):
            beyond = part.values[name] - part.floors[name]
            value, half = float(beyond.mean()), scatter(beyond, part.share)
            if np.isfinite(half):
                found.append(
                    Difference(
                        suite="fidelity",
                        metric=f"{name}, {encoder.name}",
                        scope=modal,
                        first="synthetic against real",
                        second="real against real",
                        value=value,
                        low=value - half,
                        high=value + half,
                        n=len(_rows(context.synthetic, [modal])),
                        underpowered=value - half <= 0 <= value + half,
                    )
                )
    return found


def _figures(
    measured: dict[str, Halvings],
    modals: list[str],
    scope: str,
    encoder: Encoder,
    names: list[str],
    n: int,
    n_real: int,
    without: str = "",
) -> list[Figure]:
    """Figures of one modality, or of the plain mean over several; the headline first."""
    parts = [measured[modal] for modal in modals]
    count = min(len(part.values[FID]) for part in parts)
    share = max(part.share for part in parts)
    sizes = sorted({part.size for part in parts})
    note = f"{' to '.join(map(str, sizes[:: max(len(sizes) - 1, 1)]))} images a side, "
    note += f"mean of {count} halvings"
    if scope == OVERALL:
        note += f", plain mean of {', '.join(modals)}{without}"
    few = min(n, n_real) < settings()["headline_kernel_below"]
    headline = KID if few else FID
    marks = {FID: "grows as images get fewer: read it against its floor; "} if few else {}
    marks[headline] = "headline; "
    figures = []
    for name in sorted(names, key=lambda name: name != headline):
        values = np.mean([part.values[name][:count] for part in parts], axis=0)
        floors = np.mean([part.floors[name][:count] for part in parts], axis=0)
        figures.append(
            Figure(
                suite="fidelity",
                metric=name,
                scope=scope,
                scorer=_scorer(encoder, name),
                better="lower" if name in (KID, FID) else "higher",
                value=float(values.mean()),
                **_interval(float(values.mean()), scatter(values, share), name, sizes[0]),
                n=n,
                n_real=n_real,
                floor=float(floors.mean()),
                floor_low=float(np.quantile(floors, 0.025)),
                floor_high=float(np.quantile(floors, 0.975)),
                floor_of=FLOOR_OF,
                note=marks.get(name, "") + note,
            )
        )
    return figures


def _whole(
    real: np.ndarray,
    synthetic: np.ndarray,
    found: Halvings,
    scope: str,
    encoder: Encoder,
    without: str = "",
) -> Figure:
    """FID over all images, as publications have it; no floor is possible at that size."""
    value = frechet_distance(real, synthetic)
    return Figure(
        suite="fidelity",
        metric=FID_ALL,
        scope=scope,
        scorer=encoder.name,
        better="lower",
        value=value,
        **_interval(value, scatter(found.values[FID], found.share), FID),
        n=len(synthetic),
        n_real=len(real),
        note="to set beside publications; no floor at this size, FID has one"
        + ("; all modalities pooled" if scope == OVERALL else "")
        + without,
    )


def _interval(value: float, half: float, name: str, size: int = 0) -> dict[str, float]:
    if not np.isfinite(half):
        return {}
    if name in SHARES and half == 0 and value in (0, 1):
        # None or all in every halving shows no doubt; the `size` images behind it leave some.
        low, high = share_interval(round(value * size), size)
        return {"low": low, "high": high}
    least, greatest = RANGES[name]
    return {"low": max(value - half, least), "high": min(value + half, greatest)}


def _scorer(encoder: Encoder, name: str) -> str:
    if name == IS and isinstance(encoder, Classifier):
        classes = encoder.logits(np.zeros((1, encoder.width), dtype=np.float32)).shape[1]
        return f"{encoder.name}, its {classes} classes"
    return encoder.name


def _columns(scores: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([one[name] for one in scores]) for name in scores[0]}


def _rows(table: ImageTable, modals: list[str]) -> np.ndarray:
    return np.array([i for i, row in enumerate(table.rows) if row.modal in modals], dtype=np.int64)

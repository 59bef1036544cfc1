"""Privacy: do synthetic images lie nearer to the training images than real strangers do?

For each modality, distances synthetic to train are set against real test to train, in pixel and
in feature space; the shares of near-copies and the authenticity (Alaa et al. 2022) against those
of real images; copied pixels are counted, and prompts that are training captions. It sees copies
of whole images; it is no proof of privacy, and no membership attack is tried.
"""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

from medgen.evaluation.context import Context
from medgen.evaluation.figures import (
    LEAST,
    OVERALL,
    Difference,
    Figure,
    Outcome,
    Picture,
    Suite,
    unmeasured,
)
from medgen.evaluation.leaks import ALIKE, caption_matches, strangers
from medgen.evaluation.nearness import (
    AUTHENTIC,
    COPIES,
    MEDIAN,
    RATIO,
    SPOILT,
    Kept,
    Nearness,
    Space,
    nearness,
    rules,
    together,
)
from medgen.evaluation.neighbours import centred, coarse_grey, moved_structure
from medgen.evaluation.pairs import Pair, draw_distances, draw_pairs
from medgen.evaluation.tables import ImageTable
from medgen.measure.statistics import share_interval

SUITE: Suite = "privacy"
PIXELS = "pixel neighbours (coarse structure)"
DIGEST = "SHA-256 of the pixels"
CAPTIONS = f"text match (rapidfuzz ratio >= {ALIKE:g})"
EXACT = "exact copies"
PROMPTS = "prompts that are training captions"
NO_TRAIN = "no train table: name the generator's training images with --train"


def measure(context: Context, pictures: bool = True) -> Outcome:
    """Distances to the training images, near-copies, authenticity, copied pixels and prompts.

    "overall" is the mean over modalities, each weighing as its synthetic images; its ratio is a
    geometric mean. Intervals resample synthetic images by prompt and real ones by patient, and
    set the threshold of near-copies anew each time.

    Args:
        context: The tables; without `train` nothing is measurable.
        pictures: Draw the nearest pairs. They show real training images: not to be shared.
    """
    if context.train is None:
        missing = [
            unmeasured(SUITE, metric, OVERALL, PIXELS, len(context.synthetic), NO_TRAIN)
            for metric in (RATIO, COPIES, AUTHENTIC)
        ]
        return Outcome(figures=missing, warnings=[NO_TRAIN])
    real, warnings = strangers(context.real, context.train)
    outcome = Outcome(warnings=warnings)
    spaces = _spaces(context)
    ours, tested, known = (
        _keep(context, table, spaces) for table in (context.synthetic, real, context.train)
    )
    _exact_copies(outcome, ours, tested, known)
    _prompts(outcome, context.synthetic, real, context.train)
    for space in spaces:
        found: list[Nearness] = []
        for place, modal in enumerate(context.synthetic.modals):
            context.progress(space.scorer, place, len(context.synthetic.modals))
            parts = ours.of(modal), tested.of(modal), known.of(modal)
            near = nearness(context, space, *parts)
            if isinstance(near, str):
                counts = len(parts[0].table), len(parts[1].table)
                outcome.figures += _unmeasured(modal, space.scorer, counts, near)
                continue
            found.append(near)
            outcome.figures += _figures(near)
            outcome.differences += _differences(near)
            if pictures:
                outcome.pictures.append(_nearest(context, near, parts[0].table, parts[2].table))
        context.progress(space.scorer, len(context.synthetic.modals), len(context.synthetic.modals))
        if not found:
            counts = len(context.synthetic), len(real)
            why = "no modality has enough images"
            outcome.figures += _unmeasured(OVERALL, space.scorer, counts, why)
            continue
        total = together(found)
        # Distances of two modalities have no common scale.
        outcome.figures += [figure for figure in _figures(total) if figure.metric != MEDIAN]
        outcome.differences += _differences(total)
        outcome.pictures.append(
            draw_distances(
                context.out,
                space.scorer,
                {near.modal: (near.synthetic, near.real, near.threshold) for near in found},
            )
        )
    return outcome


def _spaces(context: Context) -> tuple[Space, Space]:
    encoder = context.encoders[0]
    return (
        Space(PIXELS, coarse_grey, lambda _train: moved_structure),
        Space(
            f"feature neighbours ({encoder.name})",
            lambda images: np.asarray(encoder(images), dtype=np.float32),
            lambda train: partial(centred, mean=train.mean(axis=0)),
        ),
    )


def _keep(context: Context, table: ImageTable, spaces: tuple[Space, Space]) -> Kept:
    """Read a table once for its pixels; the context may have the features already."""
    greys: list[np.ndarray] = []
    digests: list[str] = []
    for batch in table.batches():
        greys.append(coarse_grey(batch))
        digests += [hashlib.sha256(image.tobytes()).hexdigest() for image in batch]
        context.progress(f"pixels: {table.name} images", len(digests), len(table))
    pixels, features = (space.scorer for space in spaces)
    if not greys:
        width = context.encoders[0].width
        forms = {pixels: np.zeros((0, 64, 64)), features: np.zeros((0, width))}
    else:
        forms = {
            pixels: np.concatenate(greys),
            features: context.features(table, context.encoders[0]),
        }
    return Kept(table, forms, np.array(digests, dtype="U64"))


def _nearest(context: Context, near: Nearness, table: ImageTable, train: ImageTable) -> Picture:
    order = np.argsort(near.synthetic, kind="stable")[: rules()["pairs"]]
    pairs = [
        Pair(
            synthetic=table.images([place])[0],
            train=train.images([near.nearest[place]])[0],
            distance=float(near.synthetic[place]),
            nearer_than=float(np.mean(near.real > near.synthetic[place])),
        )
        for place in order
    ]
    return draw_pairs(context.out, near.modal, near.scorer, pairs)


def _unmeasured(scope: str, scorer: str, counts: tuple[int, int], why: str) -> list[Figure]:
    return [
        unmeasured(SUITE, metric, scope, scorer, counts[0], why, n_real=counts[1])
        for metric in (RATIO, COPIES, AUTHENTIC)
    ]


def _figures(near: Nearness) -> list[Figure]:
    notes = {
        MEDIAN: "0 is the same image, 2 the opposite",
        RATIO: "1 is as far as real images that nobody trained on; images unlike any real one lie "
        "farther",
        COPIES: "share nearer to a training image than all but "
        f"{rules()['near_copy_share']:.0%} of real images",
        AUTHENTIC: "share farther from the nearest training image than that one is from its own "
        "nearest of another group; high also for images unlike any real one",
        SPOILT: f"share of {len(near.spoilt)} training images, spoilt on purpose, that counts as "
        "near-copies: what this scorer can see",
    }
    better = {RATIO: "higher", COPIES: "lower", AUTHENTIC: "higher", SPOILT: "higher"}
    figures = []
    for metric, note in notes.items():
        low, high = near.bounds(metric)
        figure = {
            "suite": SUITE,
            "metric": metric,
            "scope": near.modal,
            "scorer": near.scorer,
            "better": better.get(metric),
            "value": near.values[metric],
            "low": low,
            "high": high,
            "n": 0 if metric == SPOILT else len(near.synthetic),
            "n_real": len(near.real),
            "note": note,
        }
        if f"real {metric}" in near.values:
            floor_low, floor_high = near.bounds(f"real {metric}")
            figure |= {
                "floor": near.values[f"real {metric}"],
                "floor_low": floor_low,
                "floor_high": floor_high,
                "floor_of": near.floor_of,
            }
        figures.append(Figure.model_validate(figure))
    return figures


def _differences(near: Nearness) -> list[Difference]:
    differences = []
    for metric in (COPIES, AUTHENTIC):
        value, low, high = near.difference(metric)
        differences.append(
            Difference(
                suite=SUITE,
                metric=f"{metric}, {near.scorer}",
                scope=near.modal,
                first="synthetic",
                second="real",
                value=value,
                low=low,
                high=high,
                n=len(near.synthetic),
                underpowered=low <= 0 <= high,
            )
        )
    return differences


def _exact_copies(outcome: Outcome, ours: Kept, tested: Kept, known: Kept) -> None:
    copied, leaked = (np.isin(part.digests, known.digests) for part in (ours, tested))
    if copied.any():
        outcome.warnings.append(
            f"{copied.sum()} of {len(copied)} synthetic images are training images, pixel for pixel"
        )
    if leaked.any():
        outcome.warnings.append(
            f"{leaked.sum()} of {len(leaked)} real images are training images, pixel for pixel: "
            "take them out of the real table, for they hide copying"
        )
    outcome.figures += _shares(ours.table, copied, tested.table, leaked, EXACT, DIGEST)


def _prompts(outcome: Outcome, ours: ImageTable, tested: ImageTable, known: ImageTable) -> None:
    prompts, captions = caption_matches(ours, known), caption_matches(tested, known)
    if prompts.alike.any():
        outcome.warnings.append(
            f"{prompts.alike.sum()} of {len(prompts.alike)} synthetic prompts are training "
            f"captions ({prompts.exact.sum()} word for word): figures on them reward memorising; "
            "draw from prompts that the generator was not trained on"
        )
    outcome.figures += _shares(ours, prompts.alike, tested, captions.alike, PROMPTS, CAPTIONS)


def _shares(
    ours: ImageTable,
    mine: np.ndarray,
    tested: ImageTable,
    theirs: np.ndarray,
    metric: str,
    scorer: str,
) -> list[Figure]:
    """A share for each modality and overall, beside that of real images; Wilson's intervals."""
    figures = []
    for scope in (*ours.modals, OVERALL):
        counts = []
        for table, flags in ((ours, mine), (tested, theirs)):
            inside = np.array([scope in (OVERALL, row.modal) for row in table.rows], dtype=bool)
            counts.append((int(flags[inside].sum()), int(inside.sum())))
        (yes, n), (real_yes, n_real) = counts
        if n < LEAST:
            why = f"{n} synthetic images, {LEAST} are needed"
            figures.append(unmeasured(SUITE, metric, scope, scorer, n, why, n_real=n_real))
            continue
        low, high = share_interval(yes, n)
        figure = {
            "suite": SUITE,
            "metric": metric,
            "scope": scope,
            "scorer": scorer,
            "better": "lower",
            "value": yes / n,
            "low": low,
            "high": high,
            "n": n,
            "n_real": n_real,
        }
        if n_real >= LEAST:
            floor_low, floor_high = share_interval(real_yes, n_real)
            figure |= {
                "floor": real_yes / n_real,
                "floor_low": floor_low,
                "floor_high": floor_high,
                "floor_of": "real test images",
            }
        figures.append(Figure.model_validate(figure))
    return figures

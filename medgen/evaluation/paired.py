"""Two sets of drawings of the same prompts and seeds: what changed, with intervals by prompt.

Agreement with what was asked by evaluation's reader, fidelity to real images by its encoder,
diversity within a prompt, near copies of training images. Both sets are resampled together, so
that what the prompts share cancels out. Knows images and requests; knows no generator and no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from medgen.evaluation import presence, reader
from medgen.evaluation.asked import asked, numbers
from medgen.evaluation.context import Encoder
from medgen.evaluation.distances import kernel_distance
from medgen.evaluation.diversity import LEAST_SIDE
from medgen.evaluation.fidelity import KID, Halvings, compare, scatter
from medgen.evaluation.figures import bootstrap
from medgen.evaluation.seen import Seen
from medgen.evaluation.similarity import ms_ssim
from medgen.evaluation.tables import ImageTable
from medgen.knowledge.cards import finding_cards
from medgen.measure.memorisation import bundled_index, nearest_training
from medgen.records import Record

AGREEMENT, DOUBT, SIMILARITY, SPREAD, COPIES = (
    "finding disagreement",
    "doubt of what was asked",
    "MS-SSIM within a prompt",
    "feature distance within a prompt",
    "near copies of training images",
)
BATCH = 32
PAIRS = 3  # compared a prompt


class Change(Record):
    """One figure before and after, and how it changed.

    `change` is after minus before; `relative` that over before, null where before is 0. Intervals
    are 95 %: of a bootstrap over prompts, for KID of paired halvings. `better` says which way is.
    """

    metric: str
    modality: str
    scorer: str
    better: str
    before: float
    after: float
    change: float
    low: float
    high: float
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    images: int
    prompts: int
    note: str = ""


@dataclass(frozen=True)
class Resampling:
    """Bootstrap samples of whole prompts: the same seed, the same samples."""

    seed: int
    samples: int

    def interval(
        self, statistic: Callable[[np.ndarray], float], groups: np.ndarray
    ) -> tuple[float, float]:
        """95 % interval of a statistic of image indices."""
        return bootstrap(statistic, groups, np.random.default_rng(self.seed), self.samples)


class Drawn:
    """One set of drawings and what evaluation's scorers read in it."""

    def __init__(self, table: ImageTable) -> None:
        self.table = table
        self.readings: list[reader.Reading] = []
        for images in table.batches(BATCH):
            self.readings += reader.read(images)

    def codes(self, modality: str) -> np.ndarray:
        """(n, findings) codes of `presence.judge`, NaN where nothing was asked or judged."""
        blind = np.zeros((len(self.table), 1), np.float32)
        seen = Seen(self.table, self.readings, [None] * len(self.table), blind)
        columns = []
        for finding, entries in reader.reader_card()["findings"].get(modality, {}).items():
            card = finding_cards()[modality].get(finding)
            measurable = any(entry["measurable"] for entry in entries)
            if measurable and not (card is not None and card.kind == "normal"):
                columns.append(presence.judge(seen, modality, finding, entries)[0])
        return np.stack(columns, 1) if columns else np.full((len(self.table), 0), np.nan)

    def doubts(self) -> np.ndarray:
        """(n,) one minus the mean probability that the reader gives to what was asked."""
        found = np.full(len(self.table), np.nan)
        for index, (row, reading) in enumerate(zip(self.table.rows, self.readings, strict=True)):
            if reading.modality != row.modal:
                found[index] = 1.0
                continue
            entries = reader.reader_card()["findings"].get(row.modal, {})
            given = []
            for finding, probability in reading.findings.items():
                want = asked(row, finding, presence.rivals(entries[finding]))
                if want is not None:
                    given.append(probability if want == "present" else 1 - probability)
            if given:
                found[index] = 1 - float(np.mean(given))
        return found


def disagreement(codes: np.ndarray) -> float:
    """One minus the mean balanced accuracy of (n, findings) codes; NaN where nothing is known."""
    return 1 - presence.presence_accuracy(codes)


def agreement_changes(
    before: Drawn, after: Sequence[Drawn], modality: str, resampling: Resampling
) -> list[Change]:
    """How disagreement changed in a modality, the mean over `after` sets of the same prompts."""
    rows = np.array([row.modal == modality for row in before.table.rows])
    groups = before.table.groups[rows]
    one, others = before.codes(modality)[rows], [each.codes(modality)[rows] for each in after]
    asked_for = np.isfinite(one).any(1) if one.shape[1] else np.zeros(len(one), bool)
    changes: list[Change | None] = []
    if asked_for.sum() and np.isfinite(disagreement(one)):
        note = f"seen from {numbers()['seen_from']}; {one.shape[1]} findings"
        figure = _Figure(AGREEMENT, modality, presence.READER, "lower", note)
        changes.append(
            _change(
                figure,
                lambda chosen: disagreement(one[chosen]),
                lambda chosen: float(np.mean([disagreement(each[chosen]) for each in others])),
                groups,
                resampling,
            )
        )
    doubt, doubts = before.doubts()[rows], [each.doubts()[rows] for each in after]
    if np.isfinite(doubt).any():
        figure = _Figure(DOUBT, modality, presence.READER, "lower")
        changes.append(_mean_change(figure, doubt, doubts, groups, resampling))
    return [one for one in changes if one is not None]


def fidelity_change(
    real: ImageTable,
    before: ImageTable,
    after: Sequence[ImageTable],
    modality: str,
    encoder: Encoder,
    seed: int,
    repetitions: int = 50,
) -> Change | None:
    """How KID to real images changed, halving by halving; None with too few images."""
    tables = [table.where(lambda row: row.modal == modality) for table in (real, before, *after)]
    if not all(len(table) for table in tables):
        return None
    features = [np.concatenate([encoder(b) for b in table.batches(BATCH)]) for table in tables]

    def score(first: np.ndarray, other: np.ndarray) -> dict[str, float]:
        return {KID: kernel_distance(first, other)}

    found = [
        # The same chance for each: the same halves of real images, the same prompts and seeds.
        compare(
            features[0], tables[0].groups, each, score, np.random.default_rng(seed), repetitions
        )
        for each in features[1:]
    ]
    scored = [one for one in found if isinstance(one, Halvings)]
    if len(scored) < len(found):
        return None
    first = scored[0].values[KID]
    later = np.mean([one.values[KID] for one in scored[1:]], axis=0)
    gap, share = later - first, scored[0].share
    half, base = scatter(gap, share), float(first.mean())
    value = float(gap.mean())
    known = base > 0
    return Change(
        metric=KID,
        modality=modality,
        scorer=encoder.name,
        better="lower",
        before=base,
        after=float(later.mean()),
        change=value,
        low=value - half,
        high=value + half,
        relative=value / base if known else None,
        relative_low=(value - half) / base if known else None,
        relative_high=(value + half) / base if known else None,
        images=len(tables[1]),
        prompts=len(set(tables[1].groups)),
        note=f"{scored[0].size} images a side, {len(first)} halvings",
    )


def diversity_changes(
    before: ImageTable,
    after: Sequence[ImageTable],
    modality: str,
    encoder: Encoder,
    resampling: Resampling,
) -> list[Change]:
    """How unlike each other the drawings of one prompt are, before and after."""
    tables = [table.where(lambda row: row.modal == modality) for table in (before, *after)]
    pairs = _pairs(tables[0])
    if not pairs:
        return []
    groups = np.array([tables[0].rows[i].group for i, _ in pairs])
    note = f"{len(pairs)} pairs"
    spread = _Figure(SPREAD, modality, encoder.name, "higher", note)
    measures: list[tuple[_Figure, Callable[[ImageTable], np.ndarray]]] = [
        (spread, lambda table: _distances(table, pairs, encoder))
    ]
    if before.size >= LEAST_SIDE:
        alike = _Figure(SIMILARITY, modality, "torchmetrics", "lower", note)
        measures.append((alike, lambda table: _alike(table, pairs)))
    changes = []
    for figure, of in measures:
        values = [of(table) for table in tables]
        changes.append(_mean_change(figure, values[0], values[1:], groups, resampling))
    return [one for one in changes if one is not None]


def copies_change(
    before: ImageTable, after: Sequence[ImageTable], modality: str, resampling: Resampling
) -> Change | None:
    """How many drawings are too near to a training image of the bundled index; None without any."""
    tables = [table.where(lambda row: row.modal == modality) for table in (before, *after)]
    if not len(tables[0]):
        return None
    index = bundled_index()
    flags = []
    for table in tables:
        near: list[float] = []
        for images in table.batches(BATCH):
            found = nearest_training(images, [modality] * len(images))
            near += [float(index.too_close(one, modality)) for one in found]
        flags.append(np.array(near))
    scorer = "coarse structure, the bundled index"
    return share_change(COPIES, modality, scorer, flags[0], flags[1:], tables[0].groups, resampling)


def share_change(
    metric: str,
    modality: str,
    scorer: str,
    before: np.ndarray,
    after: Sequence[np.ndarray],
    groups: np.ndarray,
    resampling: Resampling,
) -> Change | None:
    """How a share of images that is better low changed, from (n,) flags of each set."""
    return _mean_change(
        _Figure(metric, modality, scorer, "lower"), before, after, groups, resampling
    )


@dataclass(frozen=True)
class _Figure:
    metric: str
    modality: str
    scorer: str
    better: str
    note: str = ""


def _mean_change(
    figure: _Figure,
    before: np.ndarray,
    after: Sequence[np.ndarray],
    groups: np.ndarray,
    resampling: Resampling,
) -> Change | None:
    """The change of a mean over images or pairs, (n,) each, those of several sets averaged."""
    later = np.mean(after, axis=0)
    return _change(
        figure,
        lambda chosen: float(np.nanmean(before[chosen])),
        lambda chosen: float(np.nanmean(later[chosen])),
        groups,
        resampling,
    )


def _change(
    figure: _Figure,
    before: Callable[[np.ndarray], float],
    after: Callable[[np.ndarray], float],
    groups: np.ndarray,
    resampling: Resampling,
) -> Change | None:
    """The change of a statistic; None where too little is judged for one or for its interval."""

    def relative(chosen: np.ndarray) -> float:
        base = before(chosen)
        return (after(chosen) - base) / base if base > 0 else float("nan")

    def gap(chosen: np.ndarray) -> float:
        return after(chosen) - before(chosen)

    every = np.arange(len(groups))
    low, high = resampling.interval(gap, groups)
    first, later = before(every), after(every)
    if not np.isfinite([first, later, low, high]).all():
        return None
    ratios = resampling.interval(relative, groups)
    share = relative(every)
    known = bool(np.isfinite([share, *ratios]).all())
    return Change(
        metric=figure.metric,
        modality=figure.modality,
        scorer=figure.scorer,
        better=figure.better,
        before=first,
        after=later,
        change=later - first,
        low=low,
        high=high,
        relative=share if known else None,
        relative_low=ratios[0] if known else None,
        relative_high=ratios[1] if known else None,
        images=len(groups),
        prompts=len(np.unique(groups)),
        note=figure.note,
    )


def _pairs(table: ImageTable) -> list[tuple[int, int]]:
    members: dict[str, list[int]] = {}
    for index, row in enumerate(table.rows):
        members.setdefault(row.group, []).append(index)
    return [pair for own in members.values() for pair in list(combinations(own, 2))[:PAIRS]]


def _distances(table: ImageTable, pairs: Sequence[tuple[int, int]], encoder: Encoder) -> np.ndarray:
    features = np.concatenate([encoder(images) for images in table.batches(BATCH)])
    first, second = np.array(pairs).T
    return np.asarray(np.linalg.norm(features[first] - features[second], axis=1))


def _alike(table: ImageTable, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    values: list[float] = []
    for start in range(0, len(pairs), 8):
        first, second = np.array(pairs[start : start + 8]).T
        sides = [
            torch.from_numpy(table.images(side)).permute(0, 3, 1, 2).float() / 255
            for side in (first, second)
        ]
        with torch.inference_mode():
            values += ms_ssim(*sides).tolist()
    return np.array(values)

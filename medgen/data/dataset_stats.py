"""What a dataset holds: counts, yields, balance, verdicts and distances, in one pass.

Memory stays flat but for one number an image and modality (the distances). Reads the manifest;
opens no image.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import groupby

import numpy as np

from medgen.data.dataset_figures import Balance, Cell, CheckUse, DatasetStats, Nearness
from medgen.data.dataset_folder import Dataset
from medgen.data.dataset_rows import Row

AGES = ((0, 17), (18, 39), (40, 59), (60, 79), (80, 150))
NONE = "(not asked)"
Progress = Callable[[str, int, int], None]


def silent(_task: str, _done: int, _total: int) -> None:
    """Shows nothing."""


def kind_of(reason: str) -> str:
    """A reason without its figures, so that the like are counted together."""
    bare = re.sub(r"\s*\([^)]*\)", "", reason)
    return re.sub(r"\d+(\.\d+)?", "N", bare).strip() or reason


def age_band(age: float | None) -> str:
    """The band of years that an age falls into."""
    if age is None:
        return NONE
    return next((f"{low}-{high}" for low, high in AGES if age < high + 1), "over 150")


def measure(dataset: Dataset, progress: Progress = silent) -> DatasetStats:
    """Count a dataset's rows.

    Args:
        dataset: Opened.
        progress: Told how many rows were read.

    Raises:
        BadInput: The manifest cannot be read.
    """
    counter, done, total = _Counter(), 0, dataset.row_count
    for _, rows in groupby(dataset.rows(), key=lambda row: row.id):
        listed = list(rows)
        counter.task(listed, dataset)
        done += len(listed)
        progress("rows", done, total)
    return counter.stats(dataset.name)


class _Counter:
    """Collects task by task."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.cells: dict[tuple[str, str], Cell] = {}
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.rejections: Counter[str] = Counter()
        self.distances: dict[str, list[float]] = defaultdict(list)
        self.percentiles: dict[str, list[float]] = defaultdict(list)
        self.checks: dict[tuple[str, str, str, str], Counter[str]] = defaultdict(Counter)
        self.judged: dict[tuple[str, str], bool] = {}
        self.scores: list[float] = []
        self.controls: list[float] = []
        self.rounds: list[int] = []
        self.made_with: dict[str, set[str]] = defaultdict(set)
        self.sizes: Counter[str] = Counter()
        self.groups: set[str] = set()

    def task(self, rows: list[Row], dataset: Dataset) -> None:
        first = rows[0]
        key = (first.modality, first.label)
        cell = self.cells.setdefault(key, Cell(modality=key[0], label=key[1]))
        cell.tasks += 1
        cell.candidates += len(rows)
        self.totals["tasks"] += 1
        self.rounds.append(first.rounds)
        self.groups.add(first.group)
        if first.control_score is not None:
            self.controls.append(first.control_score)
        for row in rows:
            self._candidate(row)
            if row.kept:
                cell.kept += 1
                cell.verified += row.accepted is True
                self._image(row, dataset)

    def _candidate(self, row: Row) -> None:
        self.totals["candidates"] += 1
        self.totals["unjudged"] += row.accepted is None
        self.totals["rejected"] += not row.kept
        self.rejections.update({kind_of(reason) for reason in row.reasons})
        for name in ("generator", "verifier", "adapter"):
            if value := getattr(row, name):
                self.made_with[name].add(value)
        for finding in row.findings:
            key = (row.modality, finding.finding)
            self.judged[key] = self.judged.get(key, False) or bool(finding.measurements)
            for measured in finding.measurements:
                use = (*key, measured.check, measured.accuracy or "not stated")
                self.checks[use][finding.verdict or "abstain"] += 1

    def _image(self, row: Row, dataset: Dataset) -> None:
        self.totals["images"] += 1
        told = {
            "modality": row.modality,
            "side": row.side or NONE,
            "severity": row.severity or NONE,
            "view": row.view or NONE,
            "age": age_band(row.age),
            "sex": row.sex or NONE,
        }
        if dataset.splits:
            told["split"] = dataset.split_of(row)
        for name, value in told.items():
            self.counts[name][value] += 1
        self.sizes[f"{row.width}x{row.height}"] += 1
        self.scores.append(row.score)
        if row.nearest_distance is not None:
            self.distances[row.modality].append(row.nearest_distance)
        if row.nearest_percentile is not None:
            self.percentiles[row.modality].append(row.nearest_percentile)

    def stats(self, name: str) -> DatasetStats:
        modalities = sorted({modality for modality, _ in self.cells})
        return DatasetStats(
            dataset=name,
            images=self.totals["images"],
            candidates=self.totals["candidates"],
            rejected=self.totals["rejected"],
            unjudged=self.totals["unjudged"],
            tasks=self.totals["tasks"],
            groups=len(self.groups),
            cells=[self.cells[key] for key in sorted(self.cells)],
            counts={key: _ordered(value) for key, value in self.counts.items()},
            balance={one: self._balance(one) for one in modalities},
            rejections=_ordered(self.rejections),
            nearness={one: self._nearness(one) for one in modalities if self.distances[one]},
            checks=self._uses(),
            unchecked={
                one: names
                for one in modalities
                if (names := sorted(f for (m, f), by in self.judged.items() if m == one and not by))
            },
            score=_mean(self.scores),
            control_score=_mean(self.controls),
            rounds=_mean(self.rounds),
            generators=sorted(self.made_with["generator"]),
            verifiers=sorted(self.made_with["verifier"]),
            adapters=sorted(self.made_with["adapter"]),
            sizes=_ordered(self.sizes),
        )

    def _balance(self, modality: str) -> Balance:
        counts = [c.kept for c in self.cells.values() if c.modality == modality]
        return Balance(
            labels=len(counts),
            smallest=min(counts),
            largest=max(counts),
            evenness=evenness(counts),
        )

    def _nearness(self, modality: str) -> Nearness:
        distances = np.array(self.distances[modality])
        percentiles = np.array(self.percentiles[modality])
        low, median = np.quantile(distances, [0.05, 0.5])
        return Nearness(
            images=len(distances),
            closest=round(float(distances.min()), 4),
            low=round(float(low), 4),
            median=round(float(median), 4),
            nearer_than_real=round(float((percentiles <= 5).mean()), 4)
            if len(percentiles)
            else None,
        )

    def _uses(self) -> list[CheckUse]:
        return [
            CheckUse(
                modality=modality,
                finding=finding,
                check=check,
                accuracy=accuracy,
                images=sum(verdicts.values()),
                verdicts=dict(sorted(verdicts.items())),
            )
            for (modality, finding, check, accuracy), verdicts in sorted(self.checks.items())
        ]


def evenness(counts: list[int]) -> float | None:
    """Pielou's evenness of counts, 0-1; null for fewer than two kinds, 0 where nothing is."""
    if len(counts) < 2:
        return None
    total = sum(counts)
    if not total:
        return 0.0
    shares = [count / total for count in counts if count]
    entropy = sum(share * math.log(1 / share) for share in shares)
    return round(entropy / math.log(len(counts)), 4)


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _mean(values: list[float] | list[int]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None

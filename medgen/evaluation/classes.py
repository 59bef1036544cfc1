"""Which classes can be told apart, on which images: the tasks of the utility suite.

A task is a set of labels within one modality and one source, for where classes come from different
sources a classifier learns the scanner. Test images are real ones whose patients nobody trained
on; where they are too few, real and training images together are cross-validated by group. Knows
tables; trains nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml
from sklearn.model_selection import StratifiedGroupKFold

from medgen.evaluation.figures import LEAST
from medgen.evaluation.tables import ImageTable, Row

SHOWN = 6


@lru_cache
def rules() -> dict:
    """The numbers of `utility.yaml`."""
    path = Path(__file__).with_name("utility.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Task:
    """One classification: the tables hold only rows of its classes.

    `folds` is (n,) the fold of each test image where `test` is cross-validated (then `train` is
    the same table), null where it is held out. `train` is null without a train table. Every arm
    takes `images_per_class` of each class.
    """

    modal: str
    source: str
    classes: tuple[str, ...]
    test: ImageTable
    train: ImageTable | None
    synthetic: ImageTable
    images_per_class: int
    folds: np.ndarray | None = None
    left_out: str = ""

    def numbers(self, table: ImageTable) -> np.ndarray:
        """(n,) class number of each row."""
        return np.array([self.classes.index(label_of(row)) for row in table.rows], dtype=int)


@dataclass(frozen=True)
class Untestable:
    """A source of a modality whose classes cannot be told apart, and why."""

    modal: str
    source: str
    why: str
    synthetic: int
    real: int


def label_of(row: Row) -> str:
    """A row's class, case and outer spaces aside; "" where its label names none."""
    label = " ".join(row.label.casefold().split())
    return "" if label.startswith(tuple(rules()["not_classes"])) else label


def has_sources(*tables: ImageTable | None) -> bool:
    """Whether each of the tables says where its images come from."""
    return all(any("source" in row.more for row in table.rows) for table in tables if table)


def tasks(
    real: ImageTable, synthetic: ImageTable, train: ImageTable | None, seed: int
) -> list[Task | Untestable]:
    """All tasks, in the order of modality and source; what cannot be tested stands in its place.

    Args:
        real: Test images of patients that `train` does not have.
        synthetic: Its labels are the classes asked for; where it has no `source`, its images
            count for every source with their label.
        train: Real training images.
        seed: Of the folds.
    """
    by_source = has_sources(real, train)
    by_synthetic_source = by_source and has_sources(synthetic)
    known = [row for table in (real, train) if table for row in table.rows]
    found: list[Task | Untestable] = []
    for modal in synthetic.modals:
        sources = {_source(row, by_source) for row in known if row.modal == modal}
        for source in sorted(sources) or [""]:
            inside = _of_source(modal, {source}, by_source)
            ours = synthetic.where(_of_source(modal, {source, ""}, by_synthetic_source))
            found.append(
                _task(modal, source, real.where(inside), ours, train and train.where(inside), seed)
            )
    return found


def _task(
    modal: str,
    source: str,
    test: ImageTable,
    synthetic: ImageTable,
    train: ImageTable | None,
    seed: int,
) -> Task | Untestable:
    tested, ours = _counts(test), _counts(synthetic)
    known = _counts(train) if train is not None else None
    names = sorted({*tested, *(known or {})})
    usable = [name for name in names if ours[name] >= LEAST]
    held_out = tuple(
        name for name in usable if tested[name] >= LEAST and (known is None or known[name] >= LEAST)
    )
    lines = {
        name: f"{name} {tested[name]} test"
        + (f", {known[name]} training" if known is not None else "")
        + f", {ours[name]} synthetic"
        for name in sorted(names, key=lambda name: -tested[name])
    }
    if len(held_out) > 1:
        keep = _of_classes(held_out)
        counts = [ours, *([known] if known is not None else [])]
        return Task(
            modal, source, held_out, test.where(keep), train and train.where(keep),
            synthetic.where(keep), min(count[name] for count in counts for name in held_out),
            left_out=_left_out(lines, held_out),
        )  # fmt: skip
    if train is not None:
        task = _cross_validated(modal, source, usable, test, synthetic, train, seed)
        if task is not None:
            return task
    listed = "; ".join([*lines.values()][:SHOWN]) + (
        f"; and {len(lines) - SHOWN} more" * (len(lines) > SHOWN)
    )
    why = f"two classes with {LEAST} images each are needed, there are: {listed or 'no labels'}"
    return Untestable(modal, source, why, len(synthetic), len(test))


def _cross_validated(
    modal: str,
    source: str,
    usable: list[str],
    test: ImageTable,
    synthetic: ImageTable,
    train: ImageTable,
    seed: int,
) -> Task | None:
    pool = ImageTable("real and train", (*test.rows, *train.rows), test.size, train.grouped)
    images = _counts(pool)
    groups = {name: len({r.group for r in pool.rows if label_of(r) == name}) for name in images}
    classes = tuple(
        name
        for name in usable
        if images[name] >= LEAST and groups[name] >= rules()["fewest_groups"]
    )
    if len(classes) < 2:
        return None
    keep = _of_classes(classes)
    pool, ours = pool.where(keep), synthetic.where(keep)
    labels = np.array([classes.index(label_of(row)) for row in pool.rows])
    splitter = StratifiedGroupKFold(rules()["folds"], shuffle=True, random_state=seed)
    folds = np.zeros(len(pool), dtype=int)
    for fold, (_, held) in enumerate(splitter.split(labels, labels, pool.groups)):
        folds[held] = fold
    fewest = min(
        int(np.sum((folds != fold) & (labels == number)))
        for fold in range(rules()["folds"])
        for number in range(len(classes))
    )
    per_class = min(fewest, *(_counts(ours)[name] for name in classes))
    return Task(modal, source, classes, pool, pool, ours, per_class, folds)


def _source(row: Row, given: bool) -> str:
    return row.more.get("source", "") if given else ""


def _of_source(modal: str, sources: set[str], given: bool) -> Callable[[Row], bool]:
    """Says of a row whether it is of the modality and of one of the sources, and has a class."""
    return lambda row: row.modal == modal and _source(row, given) in sources and label_of(row) != ""


def _of_classes(classes: Iterable[str]) -> Callable[[Row], bool]:
    wanted = set(classes)
    return lambda row: label_of(row) in wanted


def _counts(table: ImageTable) -> Counter[str]:
    return Counter(label_of(row) for row in table.rows)


def _left_out(lines: dict[str, str], kept: tuple[str, ...]) -> str:
    rest = [line for name, line in lines.items() if name not in kept]
    more = f"; and {len(rest) - SHOWN} more" if len(rest) > SHOWN else ""
    return "; ".join(rest[:SHOWN]) + more

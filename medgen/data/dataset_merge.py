"""Several datasets made into one: ids stay unique, every file is checked as it is copied.

The same image under the same id is taken once; another image under the same id is refused unless
ids get a prefix. Memory: one short hash an image. Knows folders and manifests.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from pydantic import Field

from medgen.data.dataset_folder import ORIGIN, Dataset, open_dataset
from medgen.data.dataset_layout import settled_name
from medgen.data.dataset_rows import Row, write_manifest
from medgen.data.dataset_stats import silent
from medgen.data.exports.items import Item, Progress, slug
from medgen.data.folders import new_folder
from medgen.errors import BadInput
from medgen.records import Record

SOURCES = "sources"
KEPT_OF_SOURCES = (ORIGIN, "spec.yaml")


class Merged(Record):
    """What `medgen dataset merge --json` prints.

    `repeated` counts images left out because the same bytes were there already.
    """

    out: str
    datasets: list[str]
    images: int = 0
    rejected: int = 0
    repeated: int = 0
    notes: list[str] = Field(default_factory=list)


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    prefix: bool = False,
    progress: Progress = silent,
) -> Merged:
    """Write one dataset with the images of several.

    Args:
        folders: Two or more datasets.
        out: A new folder.
        prefix: Put each dataset's name before its ids and groups.
        progress: Told how many rows are done.

    Raises:
        BadInput: A folder is no dataset, a file is not what its manifest says, or two datasets
            have different images under one id; nothing is written then.
        MedgenError: The disk is full.
    """
    datasets = [open_dataset(folder) for folder in folders]
    names = _names(datasets)
    merged = Merged(
        out=str(Path(out).expanduser().resolve()),
        datasets=[str(one.folder) for one in datasets],
    )
    if any(dataset.splits for dataset in datasets):
        merged.notes.append("splits were left behind: split the merged dataset")
    total = sum(dataset.row_count for dataset in datasets)
    with new_folder(out) as folder:
        copier = _Copier(datasets, names if prefix else None, folder, merged)
        write_manifest(folder, _told(copier.rows(), total, progress))
        _keep_origins(datasets, names, folder)
    return merged


def _place(row: Row) -> str:
    return settled_name(row.id, row.attempt, row.kept)


class _Copier:
    """Goes through the manifests side by side, in the order of the new ids."""

    def __init__(
        self, datasets: list[Dataset], names: list[str] | None, folder: Path, merged: Merged
    ) -> None:
        self.datasets, self.names, self.folder, self.merged = datasets, names, folder, merged
        self.seen: set[bytes] = set()

    def rows(self) -> Iterator[Row]:
        """The merged manifest's rows; their files are copied before they are yielded."""
        streams = [self._stream(number) for number in range(len(self.datasets))]
        ordered = heapq.merge(*streams, key=lambda pair: (pair[1].id, pair[1].attempt, pair[0]))
        for _, pairs in groupby(ordered, key=lambda pair: pair[1].id):
            for number, row in self._of_one_dataset(list(pairs)):
                if self._copied(number, row):
                    yield row.model_copy(update={"path": _place(row)})

    def _stream(self, number: int) -> Iterator[tuple[int, Row]]:
        for row in self.datasets[number].rows():
            if self.names is not None:
                before = f"{self.names[number]}-"
                row = row.model_copy(update={"id": before + row.id, "group": before + row.group})
            yield number, row

    def _of_one_dataset(self, pairs: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """The rows of one id, once, when all datasets that have it agree on its images."""
        held: dict[int, list[Row]] = {}
        for number, row in pairs:
            held.setdefault(number, []).append(row)
        first, *others = held
        for other in others:
            if [row.sha256 for row in held[first]] != [row.sha256 for row in held[other]]:
                where = " and ".join(str(self.datasets[n].folder) for n in (first, other))
                raise BadInput(
                    f"id {pairs[0][1].id} is another image in {where}: say --prefix to put each "
                    "dataset's name before its ids"
                )
            self.merged.repeated += sum(row.kept for row in held[other])
        return [(first, row) for row in held[first]]

    def _copied(self, number: int, row: Row) -> bool:
        """Copy an image, its hash checked; False where the same bytes were copied before."""
        dataset = self.datasets[number]
        data = Item(row, "", dataset.file(row), dataset.created).read()
        short = bytes.fromhex(row.sha256)[:16]
        if row.kept and short in self.seen:
            self.merged.repeated += 1
            return False
        target = self.folder / _place(row)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if row.kept:
            self.seen.add(short)
            self.merged.images += 1
        else:
            self.merged.rejected += 1
        return True


def _names(datasets: list[Dataset]) -> list[str]:
    """A plain name for each dataset: its folder's, numbered where two are alike."""
    if len(datasets) < 2:
        raise BadInput("one dataset is nothing to merge: give two or more")
    if len({dataset.folder for dataset in datasets}) < len(datasets):
        raise BadInput("a dataset is given twice: give each once")
    names = [slug(dataset.name) or "dataset" for dataset in datasets]
    return [
        name if names.count(name) == 1 else f"{name}{number}"
        for number, name in enumerate(names, 1)
    ]


def _keep_origins(datasets: list[Dataset], names: list[str], folder: Path) -> None:
    """What the sources' folders say of how they were made, and a line of it for the whole."""
    for dataset, name in zip(datasets, names, strict=True):
        for file in KEPT_OF_SOURCES:
            if (dataset.folder / file).is_file():
                target = folder / SOURCES / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((dataset.folder / file).read_bytes())
    origin = {
        "format": 1,
        "created": max(dataset.created for dataset in datasets).isoformat(),
        "merged_from": names,
    }
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _told(rows: Iterator[Row], total: int, progress: Progress) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield row
        progress("images", number, max(total, number))

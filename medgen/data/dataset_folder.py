"""A dataset's folder opened for reading: its rows, where it comes from, and its splits.

Knows the files of the folder and what they are called; `dataset_rows` knows the manifest.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medgen.data.dataset_rows import PARQUET, Row, manifest_path, read_rows
from medgen.errors import BadInput

ORIGIN = "dataset.json"
JOURNAL = "journal.sqlite"
SPLITS = "splits.csv"
PLAIN = re.compile(r"(?![. ])[\w. +-]{1,200}")
Which = Literal["accepted", "rejected", "all"]
WHICH: tuple[Which, ...] = ("accepted", "rejected", "all")


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    Attributes:
        folder: Absolute.
        origin: What `dataset.json` says of how it was made; empty where there is none.
        splits: The split of each id, from `splits.csv`; empty where the dataset was not split.
    """

    folder: Path
    origin: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def created(self) -> datetime:
        """When it was made (UTC), the first second of 1970 where that is not known."""
        try:
            moment = datetime.fromisoformat(str(self.origin["created"]))
        except (KeyError, ValueError):
            return datetime.fromtimestamp(0, UTC)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @property
    def row_count(self) -> int:
        """How many rows the manifest has; 0 where only reading it all would tell (CSV)."""
        path = manifest_path(self.folder)
        if path.suffix == ".csv":
            return 0
        try:
            return int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise BadInput(f"{path} cannot be read ({error})") from error

    def rows(self, which: Which = "all", modality: str | None = None) -> Iterator[Row]:
        """The manifest's rows one by one: the dataset's images, the rejected ones, or all.

        Raises:
            BadInput: The manifest cannot be read, or an id is no plain name, of which files are
                made.
        """
        for row in read_rows(self.folder):
            if not PLAIN.fullmatch(row.id):
                raise BadInput(
                    f"id {row.id!r} in {self.folder} is no plain name (letters, digits, . _ - and "
                    "space, no leading dot): files are named after it"
                )
            if which != "all" and row.kept != (which == "accepted"):
                continue
            if modality is None or row.modality.lower() == modality.lower():
                yield row

    def file(self, row: Row) -> Path:
        """The file of a row's image.

        Raises:
            BadInput: The path leads out of the dataset's folder.
        """
        path = (self.folder / row.path).resolve()
        if not path.is_relative_to(self.folder):
            raise BadInput(f"{row.path} of {row.id} lies outside of {self.folder}")
        return path

    def split_of(self, row: Row) -> str:
        """The split that an image is in; "train" where the dataset was not split."""
        if not self.splits:
            return "train"
        try:
            return self.splits[row.id]
        except KeyError:
            raise BadInput(
                f"{row.id} is in no split of {self.folder / SPLITS}: split the dataset again"
            ) from None


def open_dataset(folder: str | Path) -> Dataset:
    """Open a dataset's folder.

    Raises:
        BadInput: It holds no manifest, or one of its files cannot be read.
    """
    if re.match(r"[a-z][a-z0-9+]+:/", str(folder)):
        raise BadInput(
            f"{folder} is no local folder: fetch the dataset first, then give its folder"
        )
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise BadInput(f"no folder at {folder}: give the folder that medgen synthesize wrote")
    if (folder / JOURNAL).exists() and not (folder / PARQUET).exists():
        raise BadInput(f"the run in {folder} is not finished: medgen synthesize --resume first")
    manifest_path(folder)
    return Dataset(folder, _origin(folder / ORIGIN), _splits(folder / SPLITS))


def _origin(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        origin = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from error
    if not isinstance(origin, dict):
        raise BadInput(f"{path} is no JSON object")
    return origin


def _splits(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            splits = {line["id"]: line["split"] for line in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read ({error}): split the dataset again") from error
    for name in sorted(set(splits.values())):
        if not name.isidentifier():
            raise BadInput(f"{path} calls a split {name!r}, which is no name: split again")
    return splits

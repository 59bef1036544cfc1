"""Training rows on disk: a table of any length as a sequence that takes next to no memory.

The table is read once, row by row, into an Arrow file beside the run's other caches, and mapped
into memory; tables joined to it lie in a temporary SQLite file meanwhile. Knows columns and paths;
opens no image.
"""

from __future__ import annotations

import bisect
import csv
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from medgen.data.formats import Reading, locate, read_rows
from medgen.data.splits import is_validation
from medgen.errors import BadInput
from medgen.generator.checkpoints import writing
from medgen.knowledge.cards import modality_cards

Row = dict[str, str]

CHUNK = 4096
VERSION = 1
# What a table may leave out: without splits every row is for training, without groups each
# picture is a group of its own.
OPTIONAL = ("label", "split", "group", "source")


class RowIndex(Sequence[Row]):
    """Rows of an Arrow file, read from disk when asked for."""

    def __init__(self, path: Path, chosen: np.ndarray | None = None) -> None:
        self.path = path
        self.table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.batches = self.table.to_batches()
        self.ends = np.cumsum([len(batch) for batch in self.batches]).tolist()
        self.chosen = np.arange(len(self.table)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> RowIndex: ...

    def __getitem__(self, index: int | slice) -> Row | RowIndex:
        if isinstance(index, slice):
            return RowIndex(self.path, self.chosen[index])
        place = int(self.chosen[index])
        number = bisect.bisect_right(self.ends, place)
        first = self.ends[number - 1] if number else 0
        return self.batches[number].slice(place - first, 1).to_pylist()[0]

    def __iter__(self) -> Iterator[Row]:
        # Whole chunks: a row at a time costs twenty times as much.
        first, at = 0, 0
        for batch, end in zip(self.batches, self.ends, strict=True):
            upto = int(np.searchsorted(self.chosen, end))
            if upto > at:
                listed = batch.to_pylist()
                for place in self.chosen[at:upto]:
                    yield listed[place - first]
            first, at = end, upto

    def folds(self) -> tuple[RowIndex, RowIndex]:
        """Rows for training and those of the validation fold, carved by group."""
        held_out = np.fromiter((row["fold"] == "held out" for row in self), bool, len(self))
        return (
            RowIndex(self.path, self.chosen[~held_out]),
            RowIndex(self.path, self.chosen[held_out]),
        )


class _Joined:
    """Further columns by path, on disk."""

    def __init__(self, tables: Sequence[Path]) -> None:
        self.store = sqlite3.connect("")  # a temporary file
        self.store.execute("CREATE TABLE extra (path TEXT, entries TEXT)")
        self.columns: list[str] = []
        for table in tables:
            self.store.executemany("INSERT INTO extra VALUES (?, ?)", self._rows(table))
        self.store.execute("CREATE INDEX by_path ON extra (path)")

    def _rows(self, table: Path) -> Iterator[tuple[str, str]]:
        with table.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or ())
            if "path" not in names:
                raise BadInput(f"{table} has no column 'path'")
            self.columns += [name for name in names if name not in (*self.columns, "path")]
            for row in reader:
                yield row["path"], json.dumps({k: v for k, v in row.items() if v and k != "path"})

    def of(self, path: str) -> Row:
        found = self.store.execute(
            "SELECT entries FROM extra WHERE path = ? ORDER BY rowid", (path,)
        )
        entries: Row = {}
        for (text,) in found:
            entries |= json.loads(text)
        return entries


def index_rows(table: Path, joined: Sequence[Path], cache: Path) -> RowIndex:
    """The rows of `split=train`, with their number in the table and their image's place.

    Columns are the tables' own and `index` (number of the row in the table, 0 the first), `image`
    (absolute path) and `fold` ("training" or "held out").

    Args:
        table: `path,text,modal` in any form of `medgen.data.formats`; `label`, `split`, `group`
            and `source` where it has them.
        joined: CSV tables with more columns, joined by `path`; later ones win.
        cache: Folder for the index.

    Raises:
        BadInput: A column that is missing, no training row, or a modality without a card.
    """
    digest = hashlib.sha256(str(VERSION).encode())
    for source in (table, *joined):
        facts = source.stat()
        digest.update(f"{source.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode())
    path = cache / f"rows-{digest.hexdigest()[:16]}.arrow"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _write(path, table, joined)
    return RowIndex(path)


def _write(path: Path, table: Path, joined: Sequence[Path]) -> None:
    reading, extra = Reading(), _Joined(joined)
    rows = _rows(table, reading, extra)
    temporary = path.with_name(f".{path.name}.tmp")
    first = list(islice(rows, CHUNK))
    if not first:
        raise BadInput(f"{table} has no row with split=train")
    added = [name for name in extra.columns if name not in first[0]]
    schema = pa.schema([(name, pa.string()) for name in (*first[0], *added)])
    with writing(path):
        try:
            with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                chunk = first
                while chunk:
                    listed = [{name: row.get(name, "") for name in schema.names} for row in chunk]
                    writer.write_batch(pa.RecordBatch.from_pylist(listed, schema))
                    chunk = list(islice(rows, CHUNK))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _rows(table: Path, reading: Reading, extra: _Joined) -> Iterator[Row]:
    cards = modality_cards().keys()
    for number, row in enumerate(read_rows(table, reading, located=False)):
        if row.get("split", "train") != "train":
            continue
        if row["modal"] not in cards:
            raise BadInput(
                f"{table}: no modality card for {row['modal']}: add one to the folder of "
                "MEDGEN_MODALITY_CARDS"
            )
        place = locate(row["path"], table.parent, reading.form)
        full = {**dict.fromkeys(OPTIONAL, ""), **row, **extra.of(row["path"])}
        full["group"] = full["group"] or row["path"]
        fold = "held out" if is_validation(full["group"]) else "training"
        yield {**full, "index": str(number), "image": place, "fold": fold}

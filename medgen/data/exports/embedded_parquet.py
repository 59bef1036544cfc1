"""Parquet with the images inside, as Hugging Face's hub keeps image datasets.

Source: Hugging Face datasets: an Image is stored as {bytes, path}, and the schema's metadata says
so. Rows are written in small groups, so that memory stays flat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medgen.data.dataset_rows import SCHEMA
from medgen.data.exports.items import Item, metadata

IMAGES_A_GROUP = 100
IMAGES_A_FILE = 5000
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PLAIN = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}


def schema() -> pa.Schema:
    """`image`, then the manifest's columns but `path`, and `split`."""
    fields = [field for field in SCHEMA if field.name != "path"]
    fields = [pa.field("image", IMAGE), *fields, pa.field("split", pa.string())]
    features: dict[str, Any] = {
        field.name: {"dtype": _PLAIN[field.type], "_type": "Value"} for field in fields[1:]
    }
    told = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(told)})


class _Files:
    """The Parquet files of one split, one open at a time."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.waiting: list[dict[str, Any]] = []
        self.written = 0
        self.paths: list[Path] = []
        self.writer: pq.ParquetWriter | None = None

    def add(self, values: dict[str, Any]) -> None:
        self.waiting.append(values)
        if len(self.waiting) == IMAGES_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self.waiting:
            return
        if self.written % IMAGES_A_FILE == 0:
            if self.writer is not None:
                self.writer.close()
            self.paths.append(self.folder / f".{self.split}-{len(self.paths)}")
            self.writer = pq.ParquetWriter(self.paths[-1], schema(), compression="zstd")
        assert self.writer is not None
        self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=schema()))
        self.written += len(self.waiting)
        self.waiting = []

    def close(self) -> None:
        """Write what waits; the names say how many files there are, which is known only now."""
        self._flush()
        if self.writer is not None:
            self.writer.close()
        for number, path in enumerate(self.paths):
            name = f"{self.split}-{number:05d}-of-{len(self.paths):05d}.parquet"
            path.rename(self.folder / name)


def write_parquet(found: Iterable[Item], out: Path) -> None:
    """`data/SPLIT-00000-of-0000N.parquet`, which `datasets.load_dataset(out)` reads as it is."""
    folder = out / "data"
    folder.mkdir()
    files: dict[str, _Files] = {}
    for item in found:
        if item.split not in files:
            files[item.split] = _Files(folder, item.split)
        picture = {"bytes": item.read(), "path": f"{item.name}.png"}
        files[item.split].add({"image": picture, **metadata(item)})
    for one in files.values():
        one.close()

"""Tar shards for streaming: of each image the PNG, its prompt and its row, side by side.

Source: the WebDataset format (files of one sample share the name up to its first dot). Nothing in
a shard depends on when or by whom it was written.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from medgen.data.exports.items import Item, class_name
from medgen.errors import BadInput

SHARD = 1000


class _Shards:
    """The shards of one split, one open at a time."""

    def __init__(self, out: Path, split: str, size: int) -> None:
        self.out, self.split, self.size = out, split, size
        self.written = 0
        self.tar: tarfile.TarFile | None = None

    def add(self, files: dict[str, bytes]) -> None:
        if self.written % self.size == 0:
            self.close()
            name = f"{self.split}-{self.written // self.size:06d}.tar"
            self.tar = tarfile.open(self.out / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        assert self.tar is not None
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            self.tar.addfile(member, BytesIO(data))
        self.written += 1

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()


def write_webdataset(found: Iterable[Item], out: Path) -> None:
    """`SPLIT-000000.tar` and so on, at most `SHARD` images in each.

    A sample has `png`, `txt` (the prompt), `cls` (the class's number in `classes.json`) and `json`
    (the row).

    Raises:
        BadInput: A name holds a dot, which ends a sample's name in this format.
    """
    shards: dict[str, _Shards] = {}
    classes: dict[str, int] = {}
    try:
        for item in found:
            if "." in item.name:
                raise BadInput(
                    f"id {item.name} holds a dot, which WebDataset cuts names at: choose ids "
                    "without dots, or another format"
                )
            if item.split not in shards:
                shards[item.split] = _Shards(out, item.split, SHARD)
            number = classes.setdefault(class_name(item.row), len(classes))
            row = json.dumps(item.row.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
            shards[item.split].add(
                {
                    f"{item.name}.png": item.read(),
                    f"{item.name}.txt": item.row.prompt.encode(),
                    f"{item.name}.cls": str(number).encode(),
                    f"{item.name}.json": row.encode(),
                }
            )
    finally:
        for one in shards.values():
            one.close()
    (out / "classes.json").write_text(json.dumps(list(classes), ensure_ascii=False) + "\n")

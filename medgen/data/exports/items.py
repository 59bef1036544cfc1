"""What every export is made of: an image with its row and split, its bytes checked when read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from medgen.data.dataset_folder import Dataset, Which
from medgen.data.dataset_rows import Row, cells
from medgen.errors import BadInput

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Item:
    """One image to write: its row, its split, the file that holds it, when its dataset was made."""

    row: Row
    split: str
    file: Path
    made: datetime

    @property
    def name(self) -> str:
        """A name that no other item has: the id, and the attempt where it was rejected."""
        return self.row.id if self.row.kept else f"{self.row.id}_{self.row.attempt}"

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            BadInput: It cannot be read, or holds other bytes than the manifest says.
        """
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise BadInput(
                f"cannot read {self.file} ({error.strerror}): medgen dataset verify says more"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.row.sha256:
            raise BadInput(
                f"{self.file} is not the file that the manifest names (its hash differs): "
                "medgen dataset verify says more"
            )
        return data


def items(
    dataset: Dataset, which: Which = "accepted", modality: str | None = None
) -> Iterator[Item]:
    """The images to export, in the manifest's order.

    Raises:
        BadInput: The manifest cannot be read, a path leads out of the folder, or an image is in
            no split.
    """
    for row in dataset.rows(which, modality):
        yield Item(row, dataset.split_of(row), dataset.file(row), dataset.created)


def counted(found: Iterable[Item], total: int, progress: Progress) -> Iterator[Item]:
    """The items again, each told to `progress` when the next one is asked for."""
    progress("images", 0, total)
    for number, item in enumerate(found, 1):
        yield item
        progress("images", number, total)


def class_name(row: Row) -> str:
    """Modality and label as one plain word, fit for a folder: "chest_x_ray-pleural_effusion"."""
    parts = "+".join(slug(part) for part in row.label.split(";"))
    return f"{slug(row.modality)}-{parts or 'none'}"


def slug(text: str) -> str:
    """Letters and digits of a text in lower case, joined by underscores."""
    return re.sub(r"\W+", "_", text.strip().lower()).strip("_")


def metadata(item: Item) -> dict[str, object]:
    """A row's columns and its split as plain values, lists and records as JSON strings."""
    values = cells(item.row)
    del values["path"]
    return {**values, "split": item.split}

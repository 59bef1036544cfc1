"""Image tables for evaluation: `path,text,modal[,label,group,findings,...]`, checked before use.

A table that is wrong stops the evaluation at once with one line that names the row; images are
read again from disk whenever they are needed, so that ten thousand fit in little memory. Knows
CSV and Parquet files and pixels; knows no metric and no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from medgen.data.formats import Reading, read_rows
from medgen.data.images import load_image, square
from medgen.errors import BadInput
from medgen.knowledge.cards import modality_cards
from medgen.records import Finding

MODES = ("L", "RGB", "I;16", "I;16B", "I")
Progress = Callable[[str, int, int], None]


def silent(_task: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Row:
    """One image: where it is, what it was asked to show or is said to show, and whose it is.

    `group` joins images that are not independent (a patient; a prompt). `findings` are what the
    image should show. `more` holds the table's other columns as text.
    """

    path: Path
    text: str
    modal: str
    label: str = ""
    group: str = ""
    findings: tuple[Finding, ...] = ()
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageTable:
    """Checked rows of one table, and their images as squares of `size` pixels a side."""

    name: str
    rows: tuple[Row, ...]
    size: int
    grouped: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def groups(self) -> np.ndarray:
        """(n,) group of each row."""
        return np.array([row.group for row in self.rows])

    @property
    def modals(self) -> list[str]:
        """The modalities of the table, in alphabetical order."""
        return sorted({row.modal for row in self.rows})

    def where(self, keep: Callable[[Row], bool]) -> ImageTable:
        """The table with only the rows that `keep` says yes to."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))

    def take(self, indices: Sequence[int] | np.ndarray) -> ImageTable:
        """The table with only these rows, in this order."""
        return replace(self, rows=tuple(self.rows[int(i)] for i in indices))

    def images(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """(n, size, size, 3) uint8 of some rows, all when None; for many, use `batches`."""
        chosen = range(len(self)) if indices is None else indices
        if len(chosen) == 0:
            return np.zeros((0, self.size, self.size, 3), dtype=np.uint8)
        return np.stack([self._pixels(self.rows[int(i)]) for i in chosen])

    def batches(self, batch: int = 32) -> Iterator[np.ndarray]:
        """Images in the order of the rows, (at most batch, size, size, 3) uint8 at a time."""
        for start in range(0, len(self), batch):
            yield self.images(range(start, min(start + batch, len(self))))

    def _pixels(self, row: Row) -> np.ndarray:
        image = load_image(row.path)
        if image.size != (self.size, self.size):
            image = square(image, self.size)
        return np.asarray(image)


def read_table(
    path: str | Path, name: str, size: int | None = None, progress: Progress = silent
) -> ImageTable:
    """Read and check a table; every image is decoded once.

    Args:
        path: CSV or Parquet with `path,text,modal` (or another form of `medgen.data.formats`) and
            optionally `label`, `group`, `findings` (JSON list of `Finding`); other columns are
            kept.
        name: What to call the table in messages: "real", "synthetic" or "train".
        size: Bring all images to squares of this side (aspect kept, padded black). When None the
            images must be squares of one size already.
        progress: Told how many images were checked.

    Raises:
        BadInput: The table or one of its rows is wrong; the message names the row.
    """
    path = Path(path)
    reading = Reading()
    records = [(reading.row, values) for values in read_rows(path, reading)]
    if len(records) < 2:
        raise BadInput(
            f"the {name} table {path} has {len(records)} "
            f"image{'s' if len(records) != 1 else ''}: an evaluation needs 2 or more"
        )
    rows: list[Row] = []
    seen: dict[Path, int] = {}
    first: tuple[int, int] | None = None
    modal_names = {
        alias.lower(): card.name
        for card in modality_cards().values()
        for alias in (card.name, *card.aliases)
    }
    for number, values in records:
        where = f"{path}, row {number}"
        for column in ("path", "modal"):
            if not values[column]:
                raise BadInput(f"{where}: {column} is empty: give each row its {column}")
        image = Path(values.pop("path"))
        if image in seen:
            raise BadInput(f"{where}: {image} is row {seen[image]} already: list each image once")
        seen[image] = number
        extent = _check_image(image, where)
        first = first or extent
        if size is None and extent != first:
            raise BadInput(
                f"{where}: {image} has {extent[0]}x{extent[1]} pixels, the rows before it "
                f"{first[0]}x{first[1]}: bring all to one size with --size 256"
            )
        modal = values.pop("modal")
        rows.append(
            Row(
                path=image,
                text=values.pop("text"),
                modal=modal_names.get(modal.lower(), modal),
                label=values.pop("label", ""),
                group=values.pop("group", "") or str(image),
                findings=_findings(values.pop("findings", ""), where),
                more={key: value for key, value in values.items() if value},
            )
        )
        progress(f"checking the {name} table", len(rows), len(records))
    return ImageTable(
        name=name,
        rows=tuple(rows),
        size=size or max(first or (0, 0)),
        grouped="group" in reading.columns,
        notes=tuple(f"{name} table: {note}" for note in reading.notes),
    )


def _check_image(path: Path, where: str) -> tuple[int, int]:
    """Width and height of an image that can be decoded in full and has a plain mode."""
    try:
        with Image.open(path) as opened:
            mode = opened.mode
        if mode not in MODES:
            raise BadInput(f"{path} is of mode {mode}: convert it to grey (L) or RGB")
        return load_image(path).size
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    except FileNotFoundError as error:
        raise BadInput(f"{where}: no image at {path}: check the path") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{where}: cannot read {path} as an image: replace or remove it") from error


def _findings(text: str, where: str) -> tuple[Finding, ...]:
    if not text:
        return ()
    try:
        return tuple(Finding.model_validate(one) for one in json.loads(text))
    except (ValueError, TypeError, ValidationError) as error:
        raise BadInput(
            f"{where}: findings is no JSON list of findings: write "
            '[{"finding": "cardiomegaly", "status": "present"}] or leave it empty'
        ) from error

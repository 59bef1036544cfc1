"""Cardiothoracic ratio and lung opacity of every chest film of a table, as CSV.

Run as `python -m medgen.measure.tabulate_chest ../shared/data structured.csv [pixels.npy]`; the
pixels are the table's films packed in its row order, read from the image files when not given.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from medgen.data.images import load_square, write_atomic
from medgen.measure.chest import measure_chest

COLUMNS = ("path", "cardiothoracic_ratio", "opacity_right", "opacity_left", "reason")
_BATCH = 64


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def measured_rows(data: Path, pixels: Path | None) -> Iterator[tuple[str, ...]]:
    """One row of `COLUMNS` for each chest film of `data/manifest.csv`."""
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        table = [
            (row, entry["path"])
            for row, entry in enumerate(csv.DictReader(stream))
            if entry["modal"] == "Chest X-ray"
        ]
    packed = np.load(pixels, mmap_mode="r") if pixels else None
    for start in range(0, len(table), _BATCH):
        batch = table[start : start + _BATCH]
        films = np.stack(
            [
                load_square(data / path, 256) if packed is None else packed[row]
                for row, path in batch
            ]
        )
        for (_, path), measured in zip(batch, measure_chest(films), strict=True):
            yield (
                path,
                _number(measured.ratio),
                _number(measured.opacity_right),
                _number(measured.opacity_left),
                measured.reason or "",
            )


def main(data: str, out: str, pixels: str | None = None) -> None:
    """Measure a data folder's chest films and write the table."""
    torch.set_num_threads(1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(measured_rows(Path(data), Path(pixels) if pixels else None))
    write_atomic(out, text.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])

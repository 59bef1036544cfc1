"""A folder a split and a class, with `metadata.csv`: torchvision's and Hugging Face's imagefolder.

Source: torchvision.datasets.ImageFolder; Hugging Face datasets, "ImageFolder with metadata".
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from medgen.data.dataset_rows import COLUMNS
from medgen.data.exports.items import Item, class_name, metadata

FILE = "file_name"
NAMES = (FILE, *(column for column in COLUMNS if column != "path"), "split")


def write_imagefolder(found: Iterable[Item], out: Path) -> None:
    """`SPLIT/CLASS/NAME.png`, and `SPLIT/metadata.csv` with a line an image.

    `file_name` is relative to the split's folder, where `datasets` looks for it.
    """
    with ExitStack() as files:
        tables: dict[str, csv.DictWriter[str]] = {}
        for item in found:
            if item.split not in tables:
                (out / item.split).mkdir()
                path = out / item.split / "metadata.csv"
                stream = files.enter_context(path.open("w", encoding="utf-8", newline=""))
                tables[item.split] = csv.DictWriter(stream, NAMES, lineterminator="\n")
                tables[item.split].writeheader()
            name = f"{class_name(item.row)}/{item.name}.png"
            target = out / item.split / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(item.read())
            tables[item.split].writerow({FILE: name, **metadata(item)})

"""What the anatomy modules read on the images of a table, as CSV: `path,name,value`.

Run as `python -m medgen.measure.tabulate_anatomy DATA PIXELS OUT MODALITY...`, one file a modality
in the folder OUT; at most 400 training images a source and label (150 where reading is slow), and
all others. For chest X-rays the small labelled films (`cxr/nih_64`) are read too.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from medgen.data.images import load_square, write_atomic
from medgen.measure.anatomy_by_modality import CHEST, READERS
from medgen.measure.train_reader import fold, read_table

MOST, SLOW = 400, 150
"""Training images a source and label; fewer where reading takes longer (`SLOWLY_READ`)."""
SLOWLY_READ = (CHEST, "Fundus")
SMALL_FILMS = Path("cxr") / "nih_64" / "nih_64.csv"


def chosen_rows(rows: list[dict[str, str]], modality: str) -> list[int]:
    """Row numbers of a modality; of the training fold at most so many a source and label."""
    most = SLOW if modality in SLOWLY_READ else MOST
    taken: Counter[tuple[str, str]] = Counter()
    order = np.random.default_rng(0).permutation(len(rows))
    kept = []
    for row in (int(place) for place in order):
        if rows[row]["modal"] != modality:
            continue
        if fold(rows[row]) == "train":
            key = (rows[row]["source"], rows[row]["label"])
            taken[key] += 1
            if taken[key] > most:
                continue
        kept.append(row)
    return sorted(kept)


def images_of(data: Path, pixels: np.ndarray, modality: str) -> Iterator[tuple[str, np.ndarray]]:
    """Path and (H, H, 3) uint8 of every image to read."""
    rows = read_table(data / "manifest.csv")
    for row in chosen_rows(rows, modality):
        yield rows[row]["path"], np.array(pixels[row])
    if modality == CHEST and (data / SMALL_FILMS).is_file():
        for entry in read_table(data / SMALL_FILMS):
            yield entry["path"], load_square(data / entry["path"], 256)


def main(data: str, pixels: str, out: str, *modalities: str) -> None:
    """Read a data folder's images and write one table a modality."""
    torch.set_num_threads(1)
    packed = np.load(pixels, mmap_mode="r")
    for modality in modalities or tuple(READERS):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "name", "value"))
        count = 0
        for path, image in images_of(Path(data), packed, modality):
            count += 1
            anatomy = READERS[modality](image)
            writer.writerows((path, name, f"{value:.6g}") for name, value in anatomy.values.items())
            writer.writerows(
                (path, f"missing {line.partition(':')[0]}", 1) for line in anatomy.missing
            )
        name = modality.lower().replace(" ", "_").replace("-", "_")
        write_atomic(Path(out) / f"{name}.csv", text.getvalue())
        print(f"{modality}: {count} images", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

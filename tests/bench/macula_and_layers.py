"""How well the macula is found, whether torn scans are noticed, and which fundi have two discs.

`python tests/bench/macula_and_layers.py FOLDER PIXELS FOLD [DATASET]`: FOLDER of
`medgen.measure.tabulate_anatomy`, PIXELS the packed images, FOLD "train" (all that is not
`split=test`) or "test"; of a DATASET that medgen drew, the fundi are counted too. Needs
../shared/data.
"""

import csv
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from medgen.agents.verifier.cards import anatomy_figures
from medgen.data.images import load_square
from medgen.measure.anatomy_card import labelled_rows, read_values
from medgen.measure.fundus import measure_fundus
from medgen.measure.optical_coherence import measure_oct
from medgen.measure.statistics import share_interval
from medgen.measure.train_reader import read_table

DATA = Path(__file__).parents[3] / "shared" / "data"
LAYERS = ("surface_continuity", "epithelium_continuity")
WIDTHS = (16, 32)


def share(right: int, of: int) -> str:
    """A share with its interval, as text."""
    if of == 0:
        return "none"
    low, high = share_interval(right, of)
    return f"{right} of {of} ({low:.2f}-{high:.2f})"


def named_eye(path: str) -> float | None:
    """1 right, -1 left, by the file names that say it."""
    named = re.search(r"_(left|right)$|(?<=\d)([LR])$", Path(path).stem)
    if named is None or not any(source in path for source in ("eye4class", "chasedb1")):
        return None
    return 1.0 if (named[1] or named[2]) in ("right", "R") else -1.0


def fundus_rows(table: dict, rows: dict, paths: list[str]) -> None:
    """Macula by source and label; its side against the disc's and against the file's name."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        source, label = rows[path]["source"], rows[path]["labels"]
        groups.setdefault(label if source == "eye4class" else source, []).append(path)
    print("| images | disc found | macula found, of those | distance, disc diameters | below |")
    for name, members in groups.items():
        disc = [p for p in members if "disc_x" in table[p]]
        seen = [p for p in disc if "macula_x" in table[p]]
        far = [table[p]["macula_distance"] for p in seen if "macula_distance" in table[p]]
        drop = [table[p]["macula_drop"] for p in seen if "macula_distance" in table[p]]
        spread = [
            " / ".join(f"{q:.2f}" for q in np.percentile(v, [5, 50, 95])) if v else "-"
            for v in (far, drop)
        ]
        print(
            f"| {name} | {share(len(disc), len(members))} | {share(len(seen), len(disc))} "
            f"| {spread[0]} | {spread[1]} |"
        )
    both = [p for p in paths if {"macula_eye", "eye_side"} <= table[p].keys()]
    print(
        "side of the macula as the disc's:",
        share(sum(table[p]["macula_eye"] == table[p]["eye_side"] for p in both), len(both)),
    )
    for value in ("eye_side", "macula_eye"):
        known = [p for p in paths if named_eye(p) is not None and value in table[p]]
        print(
            f"eye as the file's name, by {value}:",
            share(sum(table[p][value] == named_eye(p) for p in known), len(known)),
        )
    central = [
        p for p in paths if named_eye(p) and "macula_eye" in table[p] and "eye_side" not in table[p]
    ]
    print(
        "the same where the disc is central:",
        share(sum(table[p]["macula_eye"] == named_eye(p) for p in central), len(central)),
    )
    counts = Counter(table[p].get("disc_count", 0) for p in paths)
    print("discs counted:", dict(sorted(counts.items())))


def torn(image: np.ndarray, kind: str, width: int, draws: np.random.Generator) -> np.ndarray:
    """A scan with a band of columns made black, empty, flat, or moved 24 rows down."""
    image = image.copy()
    lit = np.flatnonzero(ndimage.gaussian_filter1d(image.max(axis=(0, 2)).astype(float), 2) > 60)
    first = int(draws.integers(lit[0] + 15, max(lit[-1] - 15 - width, lit[0] + 16)))
    band = image[:, first : first + width]
    if kind == "black":
        band[:] = 0
    elif kind == "vitreous":
        band[:] = np.tile(band[:24].copy(), (12, 1, 1))[: len(band)]
    elif kind == "flat":
        band[:] = band.mean(axis=0, keepdims=True)
    else:
        band[:] = np.roll(band, 24, axis=0)
    return image


def scan_rows(pixels: np.ndarray, places: list[int]) -> None:
    """How many torn scans fall below the range of real ones, in either layer."""
    least = {name: anatomy_figures().values["OCT"][name].range[0] for name in LAYERS}

    def noticed(image: np.ndarray) -> bool | None:
        values = measure_oct(image).values
        return any(values[n] < least[n] for n in LAYERS) if LAYERS[0] in values else None

    print("below", least)
    for kind, width in [
        ("as taken", 0),
        *((k, w) for w in WIDTHS for k in ("black", "vitreous", "flat", "moved")),
    ]:
        draws = np.random.default_rng(3)
        found = [
            noticed(torn(image, kind, width, draws) if width else image)
            for image in (np.array(pixels[place]) for place in places)
        ]
        told = [one for one in found if one is not None]
        print(
            f"{kind} {width} columns: {share(sum(told), len(told))}, "
            f"{len(found) - len(told)} abstain"
        )


def drawn_rows(dataset: Path) -> None:
    """Discs of a drawn dataset's fundi, by label."""
    counts: dict[str, Counter] = {}
    with (dataset / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["modality"] == "Fundus":
                read = measure_fundus(load_square(dataset / row["path"], 256))
                counts.setdefault(row["label"], Counter())[read.values.get("disc_count", 0)] += 1
    print("drawn, discs counted:", {k: dict(sorted(v.items())) for k, v in counts.items()})


def main(folder: str, packed: str, fold: str, dataset: str | None = None) -> None:
    """Print all of it for one fold."""
    torch.set_num_threads(1)
    rows, listed = labelled_rows(DATA), read_table(DATA / "manifest.csv")
    table = read_values(Path(folder) / "fundus.csv")
    fundus_rows(table, rows, [p for p in table if (rows[p]["fold"] == "test") == (fold == "test")])
    pixels = np.load(packed, mmap_mode="r")
    scan_rows(
        pixels,
        [
            place
            for place, row in enumerate(listed)
            if row["modal"] == "OCT" and (row["split"] == "test") == (fold == "test")
        ],
    )
    if dataset is not None:
        drawn_rows(Path(dataset))


if __name__ == "__main__":
    main(*sys.argv[1:])

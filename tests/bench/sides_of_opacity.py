"""How often evaluation's segmenter finds the denser lung on the side that was outlined.

Run as `python tests/bench/sides_of_opacity.py ../shared/data`: the 40 films whose opacities were
outlined, those with a clear difference between the sides counted.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from medgen.data.images import load_square
from medgen.evaluation.chest import read_films
from medgen.measure.opacity_card import side_agreement
from medgen.measure.statistics import share_interval

if __name__ == "__main__":
    data = Path(sys.argv[1])
    with (data / "masks.csv").open(newline="", encoding="utf-8") as stream:
        paths = [row["image"] for row in csv.DictReader(stream) if "bit mask" in row["kind"]]
    films = read_films(np.stack([load_square(data / path, 256) for path in paths]))
    sides = {
        path: film.opacities
        for path, film in zip(paths, films, strict=True)
        if film.opacities is not None
    }
    agreeing, outlined = side_agreement(data, sides)
    low, high = share_interval(agreeing, outlined)
    print(f"{agreeing} of {outlined} ({low:.2f}-{high:.2f}), {len(sides)} of {len(paths)} measured")

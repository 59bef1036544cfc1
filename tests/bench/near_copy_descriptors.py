"""Which coarse picture of an image tells spoilt copies from strangers?

Run as `python tests/bench/near_copy_descriptors.py ../shared/data/manifest.csv`. Training side:
strangers are the validation fold, copies are distorted training images; of each modality up to 900
training images, 80 strangers and 84 copies. Prints, for each descriptor, the strangers' fifth
percentile and the share of copies below it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from medgen.data.images import load_square
from medgen.data.splits import is_validation
from medgen.evaluation import neighbours
from medgen.measure.build_memorisation import DISTORTIONS, distorted

KNOWN, STRANGERS, COPIES = 900, 80, 84


def descriptor(grey: np.ndarray, cells: int, surroundings: bool) -> np.ndarray:
    """Unit vectors of `cells` x `cells` greys, with or without their surroundings' mean."""
    step = neighbours.SIDE // cells
    means = grey.astype(np.float32).reshape(-1, cells, step, cells, step).mean(axis=(2, 4))
    if surroundings:
        means = means - means.mean(axis=(1, 2), keepdims=True)
    else:
        spread = cells / 8
        means = means - ndimage.gaussian_filter(means, (0, spread, spread), mode="nearest")
    flat = means.reshape(len(means), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def main(table: Path) -> None:
    frame = pd.read_csv(table, keep_default_na=False)
    frame = frame[frame.split == "train"]
    chance = np.random.default_rng(0)

    def greys(paths: list[str], spoil: bool = False) -> np.ndarray:
        images = [load_square(table.parent / path, 256) for path in paths]
        if spoil:
            kinds = [DISTORTIONS[place % len(DISTORTIONS)] for place in range(len(images))]
            images = [distorted(i, kind) for i, kind in zip(images, kinds, strict=True)]
        return np.concatenate([neighbours.coarse_grey(image[None]) for image in images])

    for modal, rows in frame.groupby("modal"):
        held = rows.group.map(is_validation)
        known = rows.path[~held].sample(min(KNOWN, int((~held).sum())), random_state=0).tolist()
        strangers = rows.path[held].sample(min(STRANGERS, int(held.sum())), random_state=0).tolist()
        forms = greys(known), greys(strangers), greys(list(chance.choice(known, COPIES)), True)
        for cells in (16, 32):
            for surroundings in (True, False):

                def views(grey: np.ndarray, c: int = cells, s: bool = surroundings) -> list:
                    return [
                        descriptor(one, c, s).astype(np.float32) for one in neighbours.moved(grey)
                    ]

                index = neighbours.Neighbours(forms[0], np.arange(len(known)), views)
                apart, copies = index.nearest(forms[1])[0], index.nearest(forms[2])[0]
                limit = np.quantile(apart, 0.05)
                print(
                    f"{modal}: {cells} cells, {'as they are' if surroundings else 'local'}: "
                    f"{len(strangers)} strangers, fifth percentile {limit:.3f}, median "
                    f"{np.median(apart):.3f}; copies below it {np.mean(copies < limit):.2f} of "
                    f"{len(copies)}",
                    flush=True,
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

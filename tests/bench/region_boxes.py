"""How well the boxes of chest X-ray regions fit masks that they were not measured on.

    python tests/bench/region_boxes.py [DATA_FOLDER]

Prints, for both lungs, the median and the tenth percentile of the overlap (intersection over union)
of the card's box with the bounding box of the mask, and the median of the frame's middle half as a
floor; for the heart the same across the film only, for the masks do not part the heart from the
vessels above it. The lung masks (172) took no part in the boxes; the heart's are the 37 that did
and those of the test split.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from medgen.knowledge.cards import Box, modality_cards
from medgen.measure.chest_masks import read_masked_films
from medgen.measure.segmentation import STRUCTURES

MIDDLE: Box = (0.25, 0.25, 0.75, 0.75)


def bounding_box(mask: np.ndarray) -> Box:
    """The box of a (height, width) mask as fractions of the frame."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return (
        float(columns.min() / width),
        float(rows.min() / height),
        float((columns.max() + 1) / width),
        float((rows.max() + 1) / height),
    )


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def across(box: Box) -> Box:
    """A box stretched over the frame's height."""
    return (box[0], 0.0, box[2], 1.0)


def main(data: Path) -> None:
    """Measure and print."""
    films = read_masked_films(data)
    regions = {region.name: region for region in modality_cards()["Chest X-ray"].regions}
    boxes = (regions["lung"].right, regions["lung"].left, regions["heart"].box)
    heart = STRUCTURES.index("cardiomediastinum")
    for channel, box in enumerate(boxes):
        assert box is not None
        rows = [
            row
            for row in range(len(films.paths))
            if films.known[row, channel] and (channel == heart or not films.known[row, heart])
        ]
        masks = [bounding_box(films.targets[row, channel] > 0.5) for row in rows]
        middle = MIDDLE
        if channel == heart:
            box, middle, masks = across(box), across(MIDDLE), [across(mask) for mask in masks]
        fit = [overlap(box, mask) for mask in masks]
        floor = [overlap(middle, mask) for mask in masks]
        print(
            f"{STRUCTURES[channel]}: {len(rows)} masks, overlap median {np.median(fit):.2f}, "
            f"10 % below {np.quantile(fit, 0.1):.2f}; frame's middle {np.median(floor):.2f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))

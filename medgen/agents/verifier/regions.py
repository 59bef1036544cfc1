"""Where in a picture a corrected quantity lies, so that only that part is drawn anew."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.measure.chest import bundled_segmenter, clean
from medgen.measure.chest_geometry import implausible_lungs

RIGHT, LEFT, HEART = range(3)
_STRUCTURE = {
    "cardiothoracic_ratio": HEART,
    "opacity_right": RIGHT,
    "opacity_left": LEFT,
}
MARGIN = {"cardiothoracic_ratio": 10, "opacity_right": 4, "opacity_left": 4}
"""Pixels of the 128x128 mask around a structure: a heart needs room to grow."""


def region_at_fault(image: np.ndarray, quantity: str) -> np.ndarray | None:
    """The region of a quantity in a chest film.

    Args:
        image: (H, H, 3) uint8, H a multiple of 128.
        quantity: A name of the structured condition.

    Returns:
        (H, H) bool, or None for a quantity without a place or a film without believable lungs.
    """
    structure = _STRUCTURE.get(quantity)
    if structure is None:
        return None
    masks = bundled_segmenter().segment(image[None])[0]
    cleaned = clean(masks)
    if implausible_lungs(masks, cleaned):
        return None
    found = np.asarray(cleaned[structure], dtype=bool)
    if not found.any():
        return None
    grown = ndimage.binary_dilation(found, iterations=MARGIN[quantity])
    scale = image.shape[0] // grown.shape[0]
    return np.asarray(np.kron(grown, np.ones((scale, scale), dtype=bool)))

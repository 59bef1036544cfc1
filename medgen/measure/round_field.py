"""The round field of a fundus photograph: one size for all, and what its readers share.

A field is (SIZE, SIZE, 3) float32 in grey levels 0-255, stretched to a circle that touches the
frame. Places are (x, y) in shares of the field's width and height. Knows no structure of the eye
but how large a disc is to be expected.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SIZE = 192
DISC_RADIUS = 0.085 * SIZE
"""Pixels to look for an optic disc in; the disc itself is a little smaller (about 1.8 mm across in
a field of 45 degrees)."""
_CALIBRE = 3
"""Vessels of up to twice as many pixels across are closed over."""

Place = tuple[float, float]


def within(share: float = 0.94) -> np.ndarray:
    """(SIZE, SIZE) bool: nearer to the middle than this share of the field's radius."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] - (SIZE - 1) / 2
    return np.asarray(rows**2 + columns**2 <= (share * SIZE / 2) ** 2)


def offsets(place: Place) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels right of and below a place each pixel lies: two (SIZE, SIZE) arrays."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    return columns - place[0] * SIZE, rows - place[1] * SIZE


def distance(place: Place) -> np.ndarray:
    """(SIZE, SIZE) pixels from a place."""
    return np.asarray(np.hypot(*offsets(place)))


def highest(score: np.ndarray) -> tuple[float, Place]:
    """The greatest value of a (SIZE, SIZE) map, and its place."""
    row, column = np.unravel_index(np.argmax(score), score.shape)
    return float(score[row, column]), ((float(column) + 0.5) / SIZE, (float(row) + 0.5) / SIZE)


def smoothed(grey: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing that takes nothing from outside the field."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    return np.asarray(ndimage.gaussian_filter(grey * inside, sigma) / np.maximum(weight, 1e-3))


def ball(radius: int) -> np.ndarray:
    """A disc of pixels, (2 radius + 1, 2 radius + 1) bool."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(rows**2 + columns**2 <= radius**2)


def light(colours: np.ndarray) -> np.ndarray:
    """Green saturates last, red shows the disc in dark photographs: both."""
    return np.asarray(0.7 * colours[..., 1] + 0.3 * colours[..., 0])


def without_vessels(colours: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Red and green with thin dark lines closed over; blue stays, and nothing outside the field."""
    closed = np.where(inside[..., None], colours, 0)
    for channel in (0, 1):
        closed[..., channel] = ndimage.grey_closing(closed[..., channel], footprint=ball(_CALIBRE))
    return closed

"""The optic disc of a fundus photograph: where it is, how many there are, its outline and its cup.

The disc is the bright blob of a disc's size at which vessels gather. Its outline is the half-height
contour in red, where the rim is bright; the cup is what is brighter than most of the rim in green,
where it is pale. How many: bright, round patches of a disc's size, whether vessels reach them or
not, for a drawn second disc often has none. Knows no eye and no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medgen.measure.round_field import (
    DISC_RADIUS,
    Place,
    distance,
    highest,
    light,
    smoothed,
    within,
)

_LEAST_STRENGTH = 1.1
_ROUND, _SOLID = 0.55, 0.9
_LEAST_DIAMETER, _MOST_DIAMETER = 10, 40
"""Pixels of 192: 5 to 21 % of the field."""
_LEAST_HEIGHT, _NEARLY = 60, 0.6
"""Grey levels that a patch must stand out by, and of the highest patch's, to be called a disc."""
_CLEAR_ROUND, _CLEAR_SOLID = 0.6, 0.88
"""An outline is clear from here: its sizes are told."""
_CUP = 0.8
"""Of the height of the brightest part above the disc's surroundings, the cup's edge."""


@dataclass(frozen=True)
class Patch:
    """A bright patch's half-height outline.

    Attributes:
        mask: (SIZE, SIZE) bool.
        height: Grey levels of its middle above its surroundings.
        diameter: Pixels, of the circle of equal area.
        roundness: Minor over major axis, 0-1.
        solidity: Area over that of the ellipse with its axes; near 1 for a whole ellipse.
    """

    mask: np.ndarray
    height: float
    diameter: float
    roundness: float
    solidity: float

    @property
    def clear(self) -> bool:
        """Whether it is round, whole and small enough for its sizes to be told."""
        whole = self.roundness >= _CLEAR_ROUND and self.solidity >= _CLEAR_SOLID
        return whole and _LEAST_DIAMETER <= self.diameter <= _MOST_DIAMETER


def disc_blobs(colours: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How far a disc's size of pixels is brighter than its surroundings, (SIZE, SIZE) grey levels.

    Args:
        colours: (SIZE, SIZE, 3) float32, a round field.
        inside: (SIZE, SIZE) bool, the field.
    """
    near, far = (smoothed(light(colours), inside, share * DISC_RADIUS) for share in (0.5, 1.9))
    return np.asarray(near - far)


def find_disc(
    colours: np.ndarray, blobs: np.ndarray, vessels: np.ndarray, inside: np.ndarray
) -> tuple[float, Place] | None:
    """Strength and place of the optic disc; None where no blob stands out.

    Args:
        colours: (SIZE, SIZE, 3) float32, a round field.
        blobs: `disc_blobs` of it.
        vessels: (SIZE, SIZE) float32 probability of vessel.
        inside: (SIZE, SIZE) bool, the field.
    """
    deviation = float(light(colours)[inside].std())
    gathered = smoothed(vessels, inside, 0.9 * DISC_RADIUS)
    gathered = gathered / max(float(np.percentile(gathered[inside], 98)), 0.02)
    score = blobs / max(deviation, 1.0) * (0.35 + gathered)
    strength, place = highest(np.where(within(0.90), score, -1.0))
    return None if strength < _LEAST_STRENGTH else (strength, place)


def patch(seen: np.ndarray, inside: np.ndarray, place: Place) -> Patch | None:
    """The bright patch at a place, outlined at half its height; None where nothing stands out.

    Args:
        seen: (SIZE, SIZE) float32 grey levels, vessels closed over.
        inside: (SIZE, SIZE) bool, the field.
        place: Its middle, about.
    """
    away = distance(place)
    around = (away > 1.6 * DISC_RADIUS) & (away < 2.4 * DISC_RADIUS) & inside
    if around.sum() < 100:
        return None
    base = float(np.median(seen[around]))
    height = float(np.percentile(seen[away < 0.6 * DISC_RADIUS], 80)) - base
    bright = (seen > base + 0.5 * height) & (away < 1.9 * DISC_RADIUS)
    labels, count = ndimage.label(bright)
    sizes = np.bincount(labels[away < 0.8 * DISC_RADIUS], minlength=count + 1)
    sizes[0] = 0
    if height <= 0 or sizes.max() == 0:
        return None
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(labels == np.argmax(sizes)))
    area = int(mask.sum())
    if area < 20:
        return None
    minor, major = 4 * np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(np.nonzero(mask))), 1e-3))
    return Patch(
        mask=mask,
        height=height,
        diameter=float(2 * np.sqrt(area / np.pi)),
        roundness=float(minor / major),
        solidity=float(area / (np.pi / 4 * minor * major)),
    )


def bright_discs(closed: np.ndarray, blobs: np.ndarray, inside: np.ndarray) -> list[Place]:
    """Every patch as bright, round, whole and large as a disc; the brightest places of four.

    Args:
        closed: `without_vessels` of the field.
        blobs: `disc_blobs` of the field.
        inside: (SIZE, SIZE) bool.
    """
    score = np.where(within(0.80), blobs, -np.inf)
    seen = ndimage.gaussian_filter(light(closed), 0.8)
    found: list[tuple[Patch, Place]] = []
    for _ in range(4):
        _, place = highest(score)
        shape = patch(seen, inside, place)
        if shape is not None:
            found.append((shape, place))
        score = np.where(distance(place) < 3 * DISC_RADIUS, -np.inf, score)
    least = max([_LEAST_HEIGHT, *(_NEARLY * shape.height for shape, _ in found)])
    return [
        place
        for shape, place in found
        if shape.height >= least
        and shape.roundness >= _ROUND
        and shape.solidity >= _SOLID
        and _LEAST_DIAMETER <= shape.diameter <= _MOST_DIAMETER
    ]


def disc_outline(closed: np.ndarray, inside: np.ndarray, place: Place) -> Patch | None:
    """The disc's outline in red; None where it is not clear."""
    shape = patch(ndimage.gaussian_filter(closed[..., 0], 0.7), inside, place)
    return shape if shape is not None and shape.clear else None


def cup_of(closed: np.ndarray, inside: np.ndarray, place: Place, disc: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE) bool of the disc's pale middle.

    Args:
        closed: `without_vessels` of the field.
        inside: (SIZE, SIZE) bool.
        place: The disc's middle, about.
        disc: (SIZE, SIZE) bool, its outline.
    """
    green = ndimage.gaussian_filter(closed[..., 1], 0.7)
    away = distance(place)
    around = (away > 1.6 * DISC_RADIUS) & (away < 2.4 * DISC_RADIUS) & inside
    base = float(np.median(green[around]))
    top = float(np.percentile(green[disc], 97))
    return np.asarray(disc & (green > base + _CUP * (top - base)))


def vertical_extent(mask: np.ndarray) -> float:
    """Rows from the top to the bottom of a mask, its outermost 3 % of pixels left out."""
    rows = np.nonzero(mask)[0]
    if len(rows) < 5:
        return 0.0
    low, high = np.percentile(rows, [3, 97])
    return float(high - low + 1)

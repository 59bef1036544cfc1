"""Fundus photographs: the optic disc and which eye it makes of it, haze, bright spots, vessels.

Classical but for the vessels (`medgen.measure.vessels`): the disc is the bright blob of a disc's
size at which vessels gather, haze is how little the fine structure of the field stands out, bright
spots are what a morphological opening removes. Pictures are read as taken, not mirrored, and are
stretched to a round field first, because some publishers squashed them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from medgen.measure.anatomy import Anatomy, Box
from medgen.measure.vessels import field_of_view, vessel_density, vessel_probabilities

SIZE = 192
_DISC = 0.085
"""Radius of the optic disc, of the field's diameter (about 1.8 mm in a field of 45 degrees)."""
_SECOND = 0.75
"""A second blob this near the first in strength counts as another disc."""
_LEAST_DISC = 1.1
_CENTRAL = 0.1
"""Nearer to the field's middle than this, of its width, a disc does not tell the eye."""


def measure_fundus(image: np.ndarray) -> Anatomy:
    """Read one photograph.

    Args:
        image: (H, H, 3) uint8.

    Returns:
        `field_area` (share of the frame), `field_aspect` (width over height), `fine_contrast`
        (grey levels, low in haze), `vessel_density` (share of the field), `bright_spots` (share of
        the field off the disc), `disc_count`, `disc_strength`, `disc_x`, `disc_y` (0-1 of the
        field) and `eye_side` (1 right, -1 left), where a disc off the middle was found.
    """
    field = field_of_view(image)
    if field.mean() < 0.15:
        return Anatomy(missing=["fundus: no lit field found"])
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    crop = Image.fromarray(image[top:bottom, left:right])
    round_field = np.asarray(crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    inside = _disc_of_field()
    vessels = vessel_probabilities(image)
    scale = vessels.shape[0] / image.shape[0]
    box = [round(edge * scale) for edge in (left, top, right, bottom)]
    cut = Image.fromarray(vessels).crop(tuple(box))
    gathered = np.asarray(cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    values = {
        "field_area": float(field.mean()),
        "field_aspect": float((right - left) / (bottom - top)),
        "fine_contrast": fine_contrast(round_field, inside),
        "vessel_density": vessel_density(gathered, inside),
    }
    places = discs(round_field, gathered, inside)
    spots = bright_spots(round_field, inside, places)
    values["bright_spots"] = float(spots[inside].mean())
    frame = image.shape[0]
    outlines = {"vessels": vessels > 0.5, "bright spots": _unrolled(spots, field)}
    if not places:
        missing = ["optic disc: no bright blob of its size stands out", "eye side: no disc found"]
        return Anatomy(values, missing, outlines)
    strength, x, y = places[0]
    values |= {
        "disc_count": float(len(places)),
        "disc_strength": strength,
        "disc_x": x,
        "disc_y": y,
    }
    missing = []
    if abs(x - 0.5) < _CENTRAL:
        missing.append("eye side: the disc lies in the middle of the field")
    else:
        values["eye_side"] = 1.0 if x > 0.5 else -1.0
    boxes: list[tuple[str, Box]] = []
    for _, disc_x, disc_y in places:
        across, along = (right - left) / frame, (bottom - top) / frame
        middle_x, middle_y = left / frame + disc_x * across, top / frame + disc_y * along
        boxes.append(
            (
                "optic disc",
                (
                    middle_x - _DISC * across,
                    middle_y - _DISC * along,
                    middle_x + _DISC * across,
                    middle_y + _DISC * along,
                ),
            )
        )
    return Anatomy(values, missing, outlines, boxes=boxes)


def _disc_of_field(share: float = 0.94) -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] - (SIZE - 1) / 2
    return np.asarray(rows**2 + columns**2 <= (share * SIZE / 2) ** 2)


def _smoothed(grey: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing that takes nothing from outside the field."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    return np.asarray(ndimage.gaussian_filter(grey * inside, sigma) / np.maximum(weight, 1e-3))


def fine_contrast(colours: np.ndarray, inside: np.ndarray) -> float:
    """Deviation of the green channel about its surroundings, in grey levels, bright half left out.

    Args:
        colours: (SIZE, SIZE, 3) float32, a round field.
        inside: (SIZE, SIZE) bool.
    """
    green = colours[..., 1]
    detail = _smoothed(green, inside, 1.0) - _smoothed(green, inside, 6.0)
    # Vessels are darker than their surroundings; lesions and glare are brighter.
    return float(np.sqrt(np.mean(np.minimum(detail[inside], 0.0) ** 2)))


def discs(
    colours: np.ndarray, vessels: np.ndarray, inside: np.ndarray
) -> list[tuple[float, float, float]]:
    """(strength, x, y) of the optic disc and of every blob nearly as strong; strongest first."""
    # Green saturates last, red shows the disc in dark photographs.
    light = 0.7 * colours[..., 1] + 0.3 * colours[..., 0]
    radius = _DISC * SIZE
    blob = _smoothed(light, inside, 0.5 * radius) - _smoothed(light, inside, 1.9 * radius)
    deviation = float(light[inside].std())
    gathered = _smoothed(vessels, inside, 0.9 * radius)
    gathered = gathered / max(float(np.percentile(gathered[inside], 98)), 0.02)
    score = blob / max(deviation, 1.0) * (0.35 + gathered)
    score = np.where(_disc_of_field(0.90), score, -1.0)
    found: list[tuple[float, float, float]] = []
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    for _ in range(3):
        row, column = np.unravel_index(np.argmax(score), score.shape)
        strength = float(score[row, column])
        if strength < _LEAST_DISC * (1 if not found else 0) or (
            found and strength < _SECOND * found[0][0]
        ):
            break
        found.append((strength, float((column + 0.5) / SIZE), float((row + 0.5) / SIZE)))
        score = np.where((rows - row) ** 2 + (columns - column) ** 2 < (3 * radius) ** 2, -1, score)
    return found


def bright_spots(
    colours: np.ndarray, inside: np.ndarray, places: list[tuple[float, float, float]]
) -> np.ndarray:
    """Small spots brighter than their surroundings, off the disc: (SIZE, SIZE) bool."""
    green = ndimage.gaussian_filter(colours[..., 1], 0.8)
    filled = np.where(inside, green, float(np.median(green[inside])))
    stands_out = filled - ndimage.grey_opening(filled, footprint=_ball(7))
    detail = stands_out[inside]
    level = max(3.5 * 1.4826 * float(np.median(np.abs(detail - np.median(detail)))), 8.0)
    spots = (stands_out > np.median(detail) + level) & _disc_of_field(0.88)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    for _, x, y in places[:1]:
        near = (rows - y * SIZE) ** 2 + (columns - x * SIZE) ** 2 < (1.7 * _DISC * SIZE) ** 2
        spots &= ~near
    labels, count = ndimage.label(spots)
    if count == 0:
        return spots
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(labels, np.flatnonzero(sizes >= 6)))


def _ball(radius: int) -> np.ndarray:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(rows**2 + columns**2 <= radius**2)


def _unrolled(mask: np.ndarray, field: np.ndarray) -> np.ndarray:
    """A mask of the round field, back in the frame of `field`."""
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    framed = np.zeros(field.shape, dtype=bool)
    framed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = np.asarray(
        Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    )
    return framed

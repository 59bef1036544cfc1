"""Fundus photographs: disc and cup, macula, which eye it is, haze, bright and dark spots, vessels.

Classical but for the vessels (`medgen.measure.vessels`); the disc is in `optic_disc`, the macula in
`macula`. Haze is how little the fine structure of the field stands out; spots are what a
morphological opening or closing removes. Pictures are read as taken, not mirrored, and are
stretched to a round field first, because some publishers squashed them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from medgen.measure.anatomy import Anatomy, Box
from medgen.measure.macula import find_macula
from medgen.measure.optic_disc import (
    bright_discs,
    cup_of,
    disc_blobs,
    disc_outline,
    find_disc,
    vertical_extent,
)
from medgen.measure.round_field import (
    DISC_RADIUS,
    SIZE,
    Place,
    ball,
    distance,
    smoothed,
    within,
    without_vessels,
)
from medgen.measure.vessels import field_of_view, vessel_density, vessel_probabilities

_CENTRAL = 0.1
"""Nearer to the field's middle than this, of its width, a disc does not tell the eye."""
_VESSEL_LENGTH, _ON_VESSEL = 20, 0.3
"""Pixels across from which what the segmenter marks is a vessel (it marks dark spots too), and the
share of a spot that may lie on one."""


def measure_fundus(image: np.ndarray) -> Anatomy:
    """Read one photograph.

    Args:
        image: (H, H, 3) uint8.

    Returns:
        `field_area` (share of the frame), `field_aspect` (width over height), `fine_contrast`
        (grey levels, low in haze), `vessel_density` (share of the field), `bright_spots` and
        `dark_spots` (share of the field, disc and macula left out). Where a disc was found:
        `disc_count`, `disc_strength`, `disc_x`, `disc_y` (0-1 of the field) and, off the middle,
        `eye_side` (1 right, -1 left). Where its outline is clear: `disc_diameter` (share of the
        field's width), `cup_to_disc` (vertical ratio). Where the macula was found: `macula_x`,
        `macula_y`, `macula_eye` (as `eye_side`, by which side of the disc it is on), and from a
        clear disc `macula_distance` and `macula_drop` (how far below), both in disc diameters.
    """
    field = field_of_view(image)
    if field.mean() < 0.15:
        return Anatomy(missing=["fundus: no lit field found"])
    frame = _Frame(field)
    colours = frame.unrolled(image, Image.Resampling.BILINEAR).astype(np.float32)
    chances = vessel_probabilities(image)
    vessels = frame.unrolled(chances, Image.Resampling.BILINEAR)
    inside = within()
    values = {
        "field_area": float(field.mean()),
        "field_aspect": frame.aspect,
        "fine_contrast": fine_contrast(colours, inside),
        "vessel_density": vessel_density(vessels, inside),
    }
    closed = without_vessels(colours, inside)
    blobs = disc_blobs(colours, inside)
    found = find_disc(colours, blobs, vessels, inside)
    disc = found[1] if found else None
    macula = find_macula(closed, vessels, inside, disc) if disc else None
    bright = bright_spots(colours, inside, disc)
    dark = dark_spots(colours, vessels, inside, disc, macula)
    values |= {"bright_spots": _share(bright, inside), "dark_spots": _share(dark, inside)}
    outlines = {
        "vessels": chances > 0.5,
        "bright spots": frame.framed(bright),
        "dark spots": frame.framed(dark),
    }
    discs = bright_discs(closed, blobs, inside)
    if len(discs) > 1 or disc:
        values["disc_count"] = float(max(len(discs), 1))
    others = [p for p in discs if disc is None or distance(disc)[_pixel(p)] > 2 * DISC_RADIUS]
    middles = [*([disc] if disc else []), *(others if len(discs) > 1 else [])]
    boxes = [("optic disc", frame.box(place, DISC_RADIUS / SIZE)) for place in middles]
    if found is None or disc is None:
        missing = ["optic disc: no bright blob of its size stands out", "eye side: no disc found"]
        return Anatomy(values, missing, outlines, boxes=boxes)
    values |= {"disc_strength": found[0], "disc_x": disc[0], "disc_y": disc[1]}
    missing = []
    if abs(disc[0] - 0.5) < _CENTRAL:
        missing.append("eye side: the disc lies in the middle of the field")
    else:
        values["eye_side"] = 1.0 if disc[0] > 0.5 else -1.0
    outline = disc_outline(closed, inside, disc)
    if outline is None:
        missing.append("cup-to-disc ratio: the disc has no clear outline")
    else:
        cup = cup_of(closed, inside, disc, outline.mask)
        values["disc_diameter"] = outline.diameter / SIZE
        values["cup_to_disc"] = vertical_extent(cup) / vertical_extent(outline.mask)
        outlines |= {"disc outline": frame.framed(outline.mask), "cup": frame.framed(cup)}
    if macula is None:
        missing.append("macula: no spot darker than its surroundings beside the disc")
        return Anatomy(values, missing, outlines, boxes=boxes)
    values |= {"macula_x": macula[0], "macula_y": macula[1]}
    values["macula_eye"] = 1.0 if macula[0] < disc[0] else -1.0
    boxes.append(("macula", frame.box(macula, 0.6 * DISC_RADIUS / SIZE)))
    if outline is not None:
        away, drop = float(distance(disc)[_pixel(macula)]), (macula[1] - disc[1]) * SIZE
        values["macula_distance"] = away / outline.diameter
        values["macula_drop"] = drop / outline.diameter
    return Anatomy(values, missing, outlines, boxes=boxes)


class _Frame:
    """Where the field lies in its frame: to the round field of `round_field`, and back."""

    def __init__(self, field: np.ndarray) -> None:
        rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
        self.side = field.shape[0]
        self.left, self.right = int(columns[0]), int(columns[-1]) + 1
        self.top, self.bottom = int(rows[0]), int(rows[-1]) + 1

    @property
    def aspect(self) -> float:
        """Width over height."""
        return (self.right - self.left) / (self.bottom - self.top)

    def unrolled(self, image: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        """A square picture of the frame, of any side, cut to the field and made round."""
        scale = image.shape[0] / self.side
        box = [round(edge * scale) for edge in (self.left, self.top, self.right, self.bottom)]
        cut = Image.fromarray(image).crop((box[0], box[1], box[2], box[3]))
        return np.asarray(cut.resize((SIZE, SIZE), resampling))

    def framed(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the round field, back in the frame."""
        framed = np.zeros((self.side, self.side), dtype=bool)
        size = (self.right - self.left, self.bottom - self.top)
        framed[self.top : self.bottom, self.left : self.right] = np.asarray(
            Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        )
        return framed

    def box(self, place: Place, reach: float) -> Box:
        """Box about a place of the field, that far in shares of the field, in the frame."""
        across, along = self.right - self.left, self.bottom - self.top
        return (
            (self.left + (place[0] - reach) * across) / self.side,
            (self.top + (place[1] - reach) * along) / self.side,
            (self.left + (place[0] + reach) * across) / self.side,
            (self.top + (place[1] + reach) * along) / self.side,
        )


def _pixel(place: Place) -> tuple[int, int]:
    return int(place[1] * SIZE), int(place[0] * SIZE)


def _share(mask: np.ndarray, inside: np.ndarray) -> float:
    return float(mask[inside].mean())


def fine_contrast(colours: np.ndarray, inside: np.ndarray) -> float:
    """Deviation of the green channel about its surroundings, in grey levels, bright half left out.

    Args:
        colours: (SIZE, SIZE, 3) float32, a round field.
        inside: (SIZE, SIZE) bool.
    """
    green = colours[..., 1]
    detail = smoothed(green, inside, 1.0) - smoothed(green, inside, 6.0)
    # Vessels are darker than their surroundings; lesions and glare are brighter.
    return float(np.sqrt(np.mean(np.minimum(detail[inside], 0.0) ** 2)))


def bright_spots(colours: np.ndarray, inside: np.ndarray, disc: Place | None) -> np.ndarray:
    """Small spots brighter than their surroundings, off the disc: (SIZE, SIZE) bool."""
    green = ndimage.gaussian_filter(colours[..., 1], 0.8)
    filled = np.where(inside, green, float(np.median(green[inside])))
    stands_out = filled - ndimage.grey_opening(filled, footprint=ball(7))
    spots = _outstanding(stands_out, inside, 3.5, 8.0) & within(0.88)
    if disc:
        spots &= distance(disc) >= 1.7 * DISC_RADIUS
    labels, count = ndimage.label(spots)
    if count == 0:
        return spots
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(labels, np.flatnonzero(sizes >= 6)))


def _outstanding(
    detail: np.ndarray, inside: np.ndarray, deviations: float, least: float
) -> np.ndarray:
    """Where a detail exceeds the field's median by so many robust deviations, and grey levels."""
    middle = float(np.median(detail[inside]))
    spread = 1.4826 * float(np.median(np.abs(detail[inside] - middle)))
    return np.asarray(detail > middle + max(deviations * spread, least))


def dark_spots(
    colours: np.ndarray,
    vessels: np.ndarray,
    inside: np.ndarray,
    disc: Place | None,
    macula: Place | None,
) -> np.ndarray:
    """Small round spots darker than their surroundings, off disc, macula and vessels.

    Args:
        colours: (SIZE, SIZE, 3) float32, a round field.
        vessels: (SIZE, SIZE) float32 probability of vessel.
        inside: (SIZE, SIZE) bool.
        disc: Its middle.
        macula: Its middle.

    Returns:
        (SIZE, SIZE) bool; each spot of 4 to 120 pixels.
    """
    green = ndimage.gaussian_filter(colours[..., 1], 0.7)
    filled = np.where(inside, green, float(np.median(green[inside])))
    sunken = ndimage.grey_closing(filled, footprint=ball(4)) - filled
    spots = _outstanding(sunken, inside, 4.0, 6.0) & within(0.86)
    if disc:
        spots &= distance(disc) > 1.9 * DISC_RADIUS
    if macula:
        spots &= distance(macula) > 0.8 * DISC_RADIUS
    on_vessel = _long_parts(vessels > 0.5)
    labels, _ = ndimage.label(spots)
    kept = np.zeros_like(spots)
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        spot = labels[place] == number
        area = int(spot.sum())
        roundness = area / (np.pi / 4 * max(spot.shape) ** 2)
        if 4 <= area <= 120 and roundness >= 0.55 and on_vessel[place][spot].mean() <= _ON_VESSEL:
            kept[place] |= spot
    return kept


def _long_parts(mask: np.ndarray) -> np.ndarray:
    """A mask without the parts that are too short for a vessel."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    long = [
        max(part[0].stop - part[0].start, part[1].stop - part[1].start) >= _VESSEL_LENGTH
        for part in ndimage.find_objects(labels)
    ]
    return np.asarray(np.array([False, *long])[labels])

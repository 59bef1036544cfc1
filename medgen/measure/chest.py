"""What is measured on a frontal chest film: cardiothoracic ratio and lung opacity by side.

Takes films and structure masks; abstains with a reason where the masks are not believable. Knows
nothing of requests or verdicts, and cannot tell a film's view or the patient's age: whoever judges
a ratio asks `cardiothoracic_limits` with them. Heart width over thorax width after Danzer 1919.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw
from scipy import ndimage

from medgen.errors import BadInput
from medgen.measure.segmentation import SIZE, STRUCTURES, load_segmenter, probabilities
from medgen.records import AgeGroup, View

ZONES = ("upper", "middle", "lower")


@dataclass(frozen=True)
class ChestMeasurement:
    """What was read from one film.

    `ratio` is the cardiothoracic ratio (0-1) or None, `reason` then says why. `opacity_right` and
    `opacity_left` are the patient's sides, 0 as dark as the film's darkest lung, 1 as dense as
    the mediastinum, or None when the lungs were not found. `zones` holds the same by side and
    zone ("right upper"), where the lung reaches into the zone.
    """

    ratio: float | None
    opacity_right: float | None
    opacity_left: float | None
    reason: str | None = None
    zones: dict[str, float] | None = None


@dataclass(frozen=True)
class Calipers:
    """Where the two widths were taken: pixel columns and rows of the mask."""

    heart: tuple[float, float]
    heart_row: int
    thorax: tuple[float, float]
    thorax_row: int

    @property
    def ratio(self) -> float:
        """Heart width over thorax width."""
        return (self.heart[1] - self.heart[0]) / (self.thorax[1] - self.thorax[0])


@lru_cache
def thresholds() -> dict:
    """The decisive numbers of `thresholds.yaml`."""
    text = (resources.files("medgen.measure") / "thresholds.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def cardiothoracic_limits(
    view: View | None, age_group: AgeGroup | None
) -> tuple[float | None, float | None] | None:
    """Range of the cardiothoracic ratio that means an enlarged heart.

    Args:
        view: The film's projection; None where unknown.
        age_group: The patient's age group; None where unknown.

    Returns:
        (low, high) with None for an open end, or None where the ratio does not tell: other views,
        children, or anything unknown.
    """
    for entry in thresholds()["cardiothoracic_ratio"]:
        if entry["age_group"] == age_group and entry["view"] in (view, "any"):
            return tuple(entry["abnormal"]) if entry["abnormal"] else None
    return None


def clean(masks: np.ndarray) -> np.ndarray:
    """Largest connected part of each structure, holes filled.

    Args:
        masks: (3, H, W) probabilities or bool.

    Returns:
        (3, H, W) bool.
    """
    cleaned = np.zeros(masks.shape, dtype=bool)
    for channel, mask in enumerate(masks > 0.5):
        labels, count = ndimage.label(mask)
        if count:
            largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
            cleaned[channel] = ndimage.binary_fill_holes(labels == largest)
    return cleaned


def _edges(chances: np.ndarray, row: np.ndarray) -> tuple[float, float]:
    """Left and right edge of a mask row in pixels, between pixels where probabilities say so."""
    columns = np.nonzero(row)[0]
    first, last = int(columns[0]), int(columns[-1])

    def reach(inside: int, outside: int) -> float:
        if not 0 <= outside < len(row):
            return 0.5
        high, low = float(chances[inside]), float(chances[outside])
        return (high - 0.5) / (high - low) if high > 0.5 > low else 0.5

    return first + 0.5 - reach(first, first - 1), last + 0.5 + reach(last, last + 1)


def calipers(masks: np.ndarray) -> Calipers | None:
    """Measure heart and thorax on the masks of one film.

    The heart's width is the sum of its largest extents to the right and to the left of the
    midline, in the lower half of the cardiomediastinum (the upper half holds the great vessels);
    the thorax's the largest distance between the outer edges of both lungs on one level.

    Args:
        masks: (3, H, W) probabilities 0-1 or bool, channels as `STRUCTURES`.

    Returns:
        The calipers, or None when a structure is missing or the lungs share no level.
    """
    right, left, heart = clean(masks)
    levels = np.nonzero(right.any(axis=1) & left.any(axis=1))[0]
    heart_rows = np.nonzero(heart.any(axis=1))[0]
    if len(levels) == 0 or len(heart_rows) == 0:
        return None
    chances = masks.astype(np.float32)
    thorax = {
        level: (
            _edges(chances[0, level], right[level])[0],
            _edges(chances[1, level], left[level])[1],
        )
        for level in levels
    }
    thorax_row = max(thorax, key=lambda level: thorax[level][1] - thorax[level][0])
    lower = heart_rows[heart_rows >= (heart_rows[0] + heart_rows[-1]) / 2]
    borders = {row: _edges(chances[2, row], heart[row]) for row in lower}
    left_row = max(borders, key=lambda row: borders[row][1])
    return Calipers(
        heart=(min(edge[0] for edge in borders.values()), borders[left_row][1]),
        heart_row=int(left_row),
        thorax=thorax[thorax_row],
        thorax_row=int(thorax_row),
    )


def _outside(value: float, limits: list[float]) -> bool:
    return not limits[0] <= value <= limits[1]


def implausible_lungs(masks: np.ndarray) -> str | None:
    """Why the lungs of one film cannot be measured, or None when they can.

    Args:
        masks: (3, H, W) probabilities 0-1 or bool.
    """
    limits = thresholds()["plausible_masks"]
    cleaned = clean(masks)
    areas = cleaned.mean(axis=(1, 2))
    for channel in (0, 1):
        if areas[channel] < limits["lung_area"][0]:
            return f"{STRUCTURES[channel]} not found"
        if areas[channel] > limits["lung_area"][1]:
            return f"{STRUCTURES[channel]} implausibly large"
    reason = _uncertain(masks, cleaned, (0, 1))
    if reason:
        return reason
    if _outside(areas[0] / areas[1], limits["lung_area_ratio"]):
        return "lungs of implausibly different size"
    centres = [np.nonzero(cleaned[channel])[1].mean() for channel in (0, 1)]
    if centres[0] >= centres[1] or (cleaned[0] & cleaned[1]).sum() > 0.1 * cleaned[0].sum():
        return "lungs not side by side"
    return None


def implausible_heart(masks: np.ndarray) -> str | None:
    """Why the heart of one film cannot be measured, given measurable lungs, or None."""
    limits = thresholds()["plausible_masks"]
    cleaned = clean(masks)
    areas = cleaned.sum(axis=(1, 2))
    if areas[2] < 0.5 * limits["heart_to_lungs_area"][0] * (areas[0] + areas[1]):
        return "cardiomediastinum not found"
    if _outside(areas[2] / (areas[0] + areas[1]), limits["heart_to_lungs_area"]):
        return "cardiomediastinum out of proportion"
    reason = _uncertain(masks, cleaned, (2,))
    if reason:
        return reason
    centres = [np.nonzero(mask)[1].mean() for mask in cleaned]
    if not centres[0] < centres[2] < centres[1]:
        return "cardiomediastinum not between the lungs"
    return None


def _uncertain(masks: np.ndarray, cleaned: np.ndarray, channels: tuple[int, ...]) -> str | None:
    limits = thresholds()["plausible_masks"]
    for channel in channels:
        found = masks[channel] > 0.5
        if (found & cleaned[channel]).sum() < limits["largest_part"] * found.sum():
            return f"{STRUCTURES[channel]} in fragments"
        near = masks[channel].astype(np.float32)
        near = near[near > 0.1]
        if np.abs(2 * near - 1).mean() < limits["certainty"][channel]:
            return f"{STRUCTURES[channel]} uncertain"
    return None


def cardiothoracic_ratio(masks: np.ndarray) -> tuple[float | None, str | None]:
    """Cardiothoracic ratio of one film's masks.

    Args:
        masks: (3, H, W) probabilities 0-1 or bool, channels as `STRUCTURES`.

    Returns:
        (ratio, None), or (None, reason) when the masks are not believable.
    """
    reason = implausible_lungs(masks) or implausible_heart(masks)
    if reason:
        return None, reason
    limits = thresholds()["plausible_masks"]
    measured = calipers(masks)
    if measured is None:
        return None, "lungs share no level"
    width = (measured.thorax[1] - measured.thorax[0]) / masks.shape[-1]
    if _outside(width, limits["thorax_width"]):
        return None, "thorax width implausible"
    if _outside(measured.ratio, limits["cardiothoracic_ratio"]):
        return None, "ratio implausible"
    return measured.ratio, None


def lung_opacity(image: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """How dense each lung is, on a scale from the film's air (0) to its mediastinum (1).

    Air is a low percentile of the grey of both lungs, soft tissue the median of the mediastinum
    outside the lungs; a lung's value is a percentile of its grey outside the heart shadow, set
    between the two and clipped to 0-1. Percentiles are in `thresholds.yaml`. The scale is the
    film's own, so a film with both lungs wholly opaque reads too low.

    Args:
        image: (H, H) or (H, H, 3) uint8 film.
        masks: (3, 128, 128) probabilities or bool, believable lungs.

    Returns:
        "right", "left" and "right upper" ... "left lower": 0-1. A zone without lung is left out.
    """
    numbers = thresholds()["lung_opacity"]
    grey = np.asarray(
        Image.fromarray(image).convert("L").resize((SIZE, SIZE), Image.Resampling.BOX),
        dtype=np.float32,
    )
    right, left, heart = clean(masks)
    lungs = right | left
    air = float(np.percentile(grey[lungs], numbers["air_percentile"]))
    middle = heart & ~lungs
    middle = middle if middle.sum() >= 20 else heart
    if not middle.any():
        middle = ~lungs
    soft = float(np.percentile(grey[middle], numbers["soft_percentile"]))
    span = max(soft - air, 1.0)
    readings: dict[str, float] = {}
    for side, lung in (("right", right), ("left", left)):
        field = lung & ~heart
        field = field if field.sum() >= 20 else lung
        rows = np.nonzero(lung.any(axis=1))[0]
        thirds = np.array_split(np.arange(rows[0], rows[-1] + 1), len(ZONES))
        parts = [(side, field)]
        for zone, third in zip(ZONES, thirds, strict=True):
            part = np.zeros_like(field)
            part[third] = field[third]
            parts.append((f"{side} {zone}", part))
        for name, part in parts:
            if part.sum() >= 5:
                value = float(np.percentile(grey[part], numbers["lung_percentile"]))
                readings[name] = float(np.clip((value - air) / span, 0, 1))
    return readings


class ChestSegmenter:
    """The verifier's segmenter of frontal chest films."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    @classmethod
    def load(cls, folder: str | Path | None = None) -> ChestSegmenter:
        """Load the bundled segmenter, or one from a folder.

        Raises:
            BadInput: The folder holds no segmenter.
        """
        bundled = resources.files("medgen.measure") / "weights" / "chest_segmenter"
        return cls(load_segmenter(Path(str(bundled)) if folder is None else folder))

    def segment(self, images: np.ndarray) -> np.ndarray:
        """Structure probabilities, (n, 3, 128, 128) float32, of (n, H, H, 3) uint8 films."""
        return probabilities(self._model, images)

    def measure(
        self, images: np.ndarray, masks: np.ndarray | None = None
    ) -> list[ChestMeasurement]:
        """Measure (n, H, H, 3) uint8 films, segmenting them unless `masks` are given."""
        masks = self.segment(images) if masks is None else masks
        return [_measure(image, mask) for image, mask in zip(images, masks, strict=True)]


@lru_cache
def bundled_segmenter() -> ChestSegmenter:
    """The bundled segmenter, loaded once a process."""
    return ChestSegmenter.load()


def _measure(image: np.ndarray, masks: np.ndarray) -> ChestMeasurement:
    if image.std() < thresholds()["plausible_masks"]["contrast"]:
        return ChestMeasurement(None, None, None, "film without contrast")
    reason = implausible_lungs(masks)
    if reason:
        return ChestMeasurement(None, None, None, reason)
    ratio, reason = cardiothoracic_ratio(masks)
    readings = lung_opacity(image, masks)
    zones = {name: value for name, value in readings.items() if " " in name}
    return ChestMeasurement(ratio, readings["right"], readings["left"], reason, zones)


def measure_chest(images: np.ndarray) -> list[ChestMeasurement]:
    """Measure frontal chest films with the bundled segmenter.

    Args:
        images: (n, H, H, 3) uint8, square (`medgen.data.images.load_square`).

    Returns:
        One measurement a film, in order.

    Raises:
        BadInput: The array has another shape or type.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise BadInput(f"films must be (n, H, H, 3) uint8, not {images.shape}: add the first axis")
    return bundled_segmenter().measure(images)


def overlay(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Draw contours and the two calipers on a film.

    Args:
        image: (H, H, 3) uint8 film.
        masks: (3, 128, 128) probabilities or bool.

    Returns:
        (H, H, 3) uint8: right lung red, left lung green, heart blue, calipers yellow (heart) and
        white (thorax).
    """
    size = image.shape[0]
    drawn = image.copy()
    colours = ((255, 80, 80), (80, 255, 80), (90, 150, 255))
    for mask, colour in zip(clean(masks), colours, strict=True):
        large = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
        drawn[large & ~ndimage.binary_erosion(large)] = colour
    measured = calipers(masks)
    if measured is None:
        return drawn
    picture = Image.fromarray(drawn)
    pen = ImageDraw.Draw(picture)
    scale = size / masks.shape[-1]
    for (start, end), row, colour in (
        (measured.heart, measured.heart_row, (255, 255, 0)),
        (measured.thorax, measured.thorax_row, (255, 255, 255)),
    ):
        y = (row + 0.5) * scale
        pen.line([start * scale, y, end * scale, y], fill=colour, width=max(1, size // 128))
    return np.asarray(picture)

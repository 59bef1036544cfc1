"""Geometry of chest masks: believable or not, heart and thorax width, cardiothoracic ratio.

Takes structure masks of one film and the limits of `thresholds.yaml`; knows no pixels and no
model. Heart width over thorax width after Danzer 1919.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import yaml
from scipy import ndimage

from medgen.measure.segmentation import STRUCTURES
from medgen.records import AgeGroup, View


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


def calipers(masks: np.ndarray, cleaned: np.ndarray | None = None) -> Calipers | None:
    """Measure heart and thorax on the masks of one film.

    The heart's width is the sum of its largest extents to the right and to the left of the
    midline, in the lower half of the cardiomediastinum (the upper half holds the great vessels);
    the thorax's the largest distance between the outer edges of both lungs on one level.

    Args:
        masks: (3, H, W) probabilities 0-1 or bool, channels as `STRUCTURES`.
        cleaned: `clean(masks)`, where the caller has it already.

    Returns:
        The calipers, or None when a structure is missing or the lungs share no level.
    """
    right, left, heart = clean(masks) if cleaned is None else cleaned
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


def implausible_lungs(masks: np.ndarray, cleaned: np.ndarray | None = None) -> str | None:
    """Why the lungs of one film cannot be measured, or None when they can.

    Args:
        masks: (3, H, W) probabilities 0-1 or bool.
        cleaned: `clean(masks)`, where the caller has it already.
    """
    limits = thresholds()["plausible_masks"]
    cleaned = clean(masks) if cleaned is None else cleaned
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


def implausible_heart(masks: np.ndarray, cleaned: np.ndarray | None = None) -> str | None:
    """Why the heart of one film cannot be measured, given measurable lungs, or None."""
    limits = thresholds()["plausible_masks"]
    cleaned = clean(masks) if cleaned is None else cleaned
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


def cardiothoracic_ratio(
    masks: np.ndarray, cleaned: np.ndarray | None = None
) -> tuple[float | None, str | None]:
    """Cardiothoracic ratio of one film's masks.

    Args:
        masks: (3, H, W) probabilities 0-1 or bool, channels as `STRUCTURES`.
        cleaned: `clean(masks)`, where the caller has it already.

    Returns:
        (ratio, None), or (None, reason) when the masks are not believable.
    """
    cleaned = clean(masks) if cleaned is None else cleaned
    reason = implausible_lungs(masks, cleaned) or implausible_heart(masks, cleaned)
    if reason:
        return None, reason
    limits = thresholds()["plausible_masks"]
    measured = calipers(masks, cleaned)
    if measured is None:
        return None, "lungs share no level"
    width = (measured.thorax[1] - measured.thorax[0]) / masks.shape[-1]
    if _outside(width, limits["thorax_width"]):
        return None, "thorax width implausible"
    if _outside(measured.ratio, limits["cardiothoracic_ratio"]):
        return None, "ratio implausible"
    return measured.ratio, None

"""What is measured on a frontal chest film: cardiothoracic ratio and lung opacity by side.

Segments films, measures them, and abstains with a reason where the masks are not believable
(`chest_geometry`). Knows nothing of requests or verdicts, and cannot tell a film's view or the
patient's age: whoever judges a ratio asks `cardiothoracic_limits` with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from medgen.errors import BadInput
from medgen.measure.chest_geometry import (
    calipers,
    cardiothoracic_limits,
    cardiothoracic_ratio,
    clean,
    implausible_heart,
    implausible_lungs,
    thresholds,
)
from medgen.measure.segmentation import SIZE, load_segmenter, probabilities

__all__ = [
    "ChestMeasurement",
    "ChestSegmenter",
    "bundled_segmenter",
    "calipers",
    "cardiothoracic_limits",
    "cardiothoracic_ratio",
    "clean",
    "implausible_heart",
    "implausible_lungs",
    "lung_opacity",
    "measure_chest",
    "overlay",
    "thresholds",
]

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


def lung_opacity(
    image: np.ndarray, masks: np.ndarray, cleaned: np.ndarray | None = None
) -> dict[str, float]:
    """How dense each lung is, on a scale from the film's air (0) to its mediastinum (1).

    Air is a low percentile of the grey of both lungs, soft tissue the median of the mediastinum
    outside the lungs; a lung's value is a percentile of its grey outside the heart shadow, set
    between the two and clipped to 0-1. Percentiles are in `thresholds.yaml`. The scale is the
    film's own, so a film with both lungs wholly opaque reads too low.

    Args:
        image: (H, H) or (H, H, 3) uint8 film.
        masks: (3, 128, 128) probabilities or bool, believable lungs.
        cleaned: `clean(masks)`, where the caller has it already.

    Returns:
        "right", "left" and "right upper" ... "left lower": 0-1. A zone without lung is left out.
    """
    numbers = thresholds()["lung_opacity"]
    grey = np.asarray(
        Image.fromarray(image).convert("L").resize((SIZE, SIZE), Image.Resampling.BOX),
        dtype=np.float32,
    )
    right, left, heart = clean(masks) if cleaned is None else cleaned
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
    cleaned = clean(masks)
    reason = implausible_lungs(masks, cleaned)
    if reason:
        return ChestMeasurement(None, None, None, reason)
    ratio, reason = cardiothoracic_ratio(masks, cleaned)
    readings = lung_opacity(image, masks, cleaned)
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

"""Signs on a frontal chest film that its lung masks give: two lungs, their symmetry, their feet.

Blunting of the costophrenic angle is read as how far the lung's lateral foot reaches below its
diaphragm; fluid fills that corner first. Lungs whose outline is a matter of opinion, or that show
next to no vessels and ribs, are what a washed-out drawing has. Knows no model.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.measure.anatomy import Anatomy
from medgen.measure.chest_geometry import calipers, clean, implausible_lungs
from medgen.measure.segmentation import STRUCTURES

_LATERAL = 0.35
"""Lateral share of a lung's width in which its foot is sought."""
_DOME = (0.45, 0.8)
"""Where in a lung's width, from lateral, its diaphragm is read."""
_LEAST_LUNG = 0.03
_UNSURE = (0.2, 0.8)
"""Probabilities of a lung between which a pixel is neither in nor out."""
_COARSE = 3
"""Pixels of a 256-pixel film over which structure is no longer fine."""
_RIM = 2
"""Pixels of the masks by which lungs are taken smaller, so that their own edge does not count."""


def chest_signs(masks: np.ndarray) -> Anatomy:
    """Read the masks of one film.

    Args:
        masks: (3, H, W) probabilities, channels as `STRUCTURES`.

    Returns:
        `lung_count`, and for believable lungs `lung_area_ratio` (right over left),
        `costophrenic_depth_right` and `_left` (share of the lung's height, small when blunted) and
        `lung_foot_difference` (share of the thorax' height); `lung_outline_doubt` always, where a
        lung was found at all (see `outline_doubt`).
    """
    cleaned = clean(masks)
    count = int((cleaned[:2].mean(axis=(1, 2)) >= _LEAST_LUNG).sum())
    outlines = {name: mask for name, mask in zip(STRUCTURES, cleaned, strict=True) if mask.any()}
    values = {"lung_count": float(count)}
    if cleaned[:2].any():
        values["lung_outline_doubt"] = outline_doubt(masks)
    reason = implausible_lungs(masks, cleaned)
    if reason:
        return Anatomy(values, [f"lungs: {reason}"], outlines)
    right, left = cleaned[0], cleaned[1]
    values["lung_area_ratio"] = float(right.sum() / left.sum())
    tops, feet = zip(*(_extent(lung) for lung in (right, left)), strict=True)
    values["lung_foot_difference"] = abs(feet[0] - feet[1]) / (max(feet) - min(tops) + 1)
    values["costophrenic_depth_right"] = costophrenic_depth(right)
    values["costophrenic_depth_left"] = costophrenic_depth(left[:, ::-1])
    lines = []
    measured = calipers(masks, cleaned)
    if measured is not None:
        height, width = masks.shape[1:]
        for name, (start, end), row in (
            ("heart width", measured.heart, measured.heart_row),
            ("thorax width", measured.thorax, measured.thorax_row),
        ):
            y = (row + 0.5) / height
            lines.append((name, [(float(start / width), y), (float(end / width), y)]))
    return Anatomy(values, [], outlines, lines)


def outline_doubt(masks: np.ndarray) -> float:
    """Pixels that are neither lung nor not, over those that are lung.

    Args:
        masks: (3, H, W) probabilities, with a lung in them.
    """
    lungs = masks[:2].max(axis=0)
    unsure = (lungs > _UNSURE[0]) & (lungs < _UNSURE[1])
    return float(unsure.sum() / (lungs > 0.5).sum())


def fine_structure(image: np.ndarray, lungs: np.ndarray) -> float | None:
    """How much vessels, ribs and grain stand out inside the lungs.

    Args:
        image: (256, 256) or (256, 256, 3) uint8 film.
        lungs: (h, w) bool, 256 a multiple of its sides.

    Returns:
        Standard deviation in grey levels of what a blur of 3 pixels takes away; None without lungs.
    """
    grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
    inner = ndimage.binary_erosion(lungs, iterations=_RIM)
    inner = np.kron(inner, np.ones((grey.shape[0] // lungs.shape[0],) * 2, dtype=bool))
    if not inner.any():
        return None
    return float((grey - ndimage.gaussian_filter(grey, _COARSE))[inner].std())


def _extent(lung: np.ndarray) -> tuple[int, int]:
    rows = np.flatnonzero(lung.any(axis=1))
    return int(rows[0]), int(rows[-1])


def costophrenic_depth(lung: np.ndarray) -> float:
    """How far the lateral foot lies below the diaphragm, over the lung's height.

    Args:
        lung: (H, W) bool, one lung, its lateral side on the image's left.
    """
    columns = np.flatnonzero(lung.any(axis=0))
    foot = np.array([np.flatnonzero(lung[:, column])[-1] for column in columns])
    top, bottom = _extent(lung)
    lateral = foot[: max(2, round(_LATERAL * len(foot)))].max()
    dome = np.median(foot[int(_DOME[0] * len(foot)) : max(int(_DOME[1] * len(foot)), 1) + 1])
    return float((lateral - dome) / (bottom - top + 1))

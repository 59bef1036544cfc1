"""Brain MRI: where the brain lies, its midline, and how unlike its two halves are.

Classical: Otsu and morphology for head and brain, the best mirror line for the midline, the
mirrored difference for asymmetry. The sequences here are mixed and no tumour is outlined, so
neither a tumour's size nor its side could be measured against an outline.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.measure.anatomy import Anatomy, bounding_box, grey_square, otsu

SIZE = 128
_ANGLES = range(-15, 16, 3)
_LEAST_HEAD = 0.1
_LEAST_CORRELATION = 0.54
"""Of the halves; sagittal slices had 0.13 to 0.48, axial and coronal ones 0.54 to 0.93."""


def measure_brain(image: np.ndarray) -> Anatomy:
    """Read one slice.

    Args:
        image: (H, H, 3) uint8.

    Returns:
        `brain_area` (share of the frame), `mirror_correlation` (-1 to 1, of the halves along the
        best line), `asymmetry` (largest smoothed difference of the halves over the brain's own
        deviation) and `asymmetry_side` (-1 image left, 1 image right) where the slice is symmetric
        enough to have a midline.
    """
    grey = grey_square(image, SIZE)
    head = head_mask(grey)
    if head.mean() < _LEAST_HEAD:
        return Anatomy(missing=["brain: no head found"])
    brain = brain_mask(grey, head)
    if brain.sum() < 0.25 * head.sum():
        return Anatomy(missing=["brain: not told from skull and scalp"], outlines={"head": head})
    values = {"brain_area": float(brain.mean())}
    outlines = {"head": head, "brain": brain}
    angle, centre, correlation = mirror_line(grey, head)
    values["mirror_correlation"] = correlation
    if correlation < _LEAST_CORRELATION:
        missing = ["midline: the halves do not mirror each other (sagittal slice, or a large mass)"]
        return Anatomy(values, missing, outlines)
    upright = _upright(grey, angle, centre)
    inside = _upright(brain.astype(np.float32), angle, centre) > 0.5
    difference = asymmetry_map(upright, inside)
    row, column = divmod(int(np.argmax(np.abs(difference))), SIZE)
    values["asymmetry"] = float(np.abs(difference[row, column]))
    values["asymmetry_side"] = float(_odd_side(upright, inside, row, column))
    return Anatomy(
        values,
        outlines=outlines,
        lines=[("midline", _line(angle, centre))],
        boxes=[("brain", bounding_box(brain))],
    )


def head_mask(grey: np.ndarray) -> np.ndarray:
    """Largest bright part with its holes filled, (H, H) bool."""
    bright = ndimage.gaussian_filter(grey, 1) > max(0.5 * otsu(grey), 8)
    return _largest(ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=2)))


def brain_mask(grey: np.ndarray, head: np.ndarray) -> np.ndarray:
    """The brain inside the head: what stays in one piece once the skull's dark ring is cut."""
    width = np.sqrt(head.sum())
    core = ndimage.binary_erosion(head, iterations=max(2, round(0.06 * width)))
    tissue = core & (grey > 0.45 * np.median(grey[core])) if core.any() else core
    opened = ndimage.binary_opening(tissue, iterations=2)
    brain = _largest(opened)
    brain = ndimage.binary_dilation(brain, iterations=2) & core
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(brain, iterations=3)))


def mirror_line(grey: np.ndarray, head: np.ndarray) -> tuple[float, float, float]:
    """(degrees from upright, column in the turned frame, correlation) of the best mirror line."""
    masked = ndimage.gaussian_filter(grey * head, 2)[::2, ::2]
    inside = head[::2, ::2].astype(np.float32)
    middle = ndimage.center_of_mass(inside)[1]
    best = (0.0, float(middle), -1.0)
    for angle in _ANGLES:
        turned = ndimage.rotate(masked, angle, reshape=False, order=1)
        mask = ndimage.rotate(inside, angle, reshape=False, order=1) > 0.5
        if not mask.any():
            continue
        columns = np.flatnonzero(mask.any(axis=0))
        guess = (columns[0] + columns[-1]) / 2
        for shift in np.arange(-4, 4.5, 0.5):
            correlation = _mirrored_correlation(turned, mask, guess + shift)
            if correlation > best[2]:
                best = (float(angle), float(guess + shift), correlation)
    return best[0], best[1] * 2 + 0.5, best[2]


def _mirrored_correlation(grey: np.ndarray, mask: np.ndarray, column: float) -> float:
    partner = np.round(2 * column - np.arange(grey.shape[1])).astype(int)
    seen = (partner >= 0) & (partner < grey.shape[1])
    partner = np.clip(partner, 0, grey.shape[1] - 1)
    both = (mask | mask[:, partner]) & seen
    if both.sum() < 100:
        return -1.0
    here, there = grey[both], grey[:, partner][both]
    if here.std() < 1 or there.std() < 1:
        return -1.0
    return float(np.corrcoef(here, there)[0, 1])


def _upright(field: np.ndarray, angle: float, column: float) -> np.ndarray:
    """Turned so that the mirror line is upright, and moved so that it is the frame's middle."""
    turned = ndimage.rotate(field, angle, reshape=False, order=1)
    return np.asarray(ndimage.shift(turned, (0, (SIZE - 1) / 2 - column), order=1))


def asymmetry_map(upright: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Smoothed difference of the halves, in the brain's standard deviations; 0 outside."""
    both = inside & inside[:, ::-1]
    if both.sum() < 100:
        return np.zeros_like(upright)
    difference = ndimage.gaussian_filter((upright - upright[:, ::-1]) * both, 3)
    weight = ndimage.gaussian_filter(both.astype(np.float32), 3)
    level = difference / np.maximum(weight, 0.3) / max(float(upright[inside].std()), 1.0)
    return np.asarray(level * both)


def _odd_side(upright: np.ndarray, inside: np.ndarray, row: int, column: int) -> int:
    """Which half is the odd one at the place of greatest difference: -1 image left, 1 right."""
    smooth = ndimage.gaussian_filter(upright, 3)
    typical = float(np.median(smooth[inside]))
    here = abs(smooth[row, column] - typical)
    there = abs(smooth[row, SIZE - 1 - column] - typical)
    odd = column if here >= there else SIZE - 1 - column
    return 1 if odd >= SIZE / 2 else -1


def _line(angle: float, column: float) -> list[tuple[float, float]]:
    """The mirror line's ends in fractions of the frame."""
    back = np.deg2rad(-angle)
    middle, offset = (SIZE - 1) / 2, column - (SIZE - 1) / 2
    ends = []
    for along in (-0.42 * SIZE, 0.42 * SIZE):
        # Where `ndimage.rotate` by the angle takes its pixels from.
        x = middle + offset * np.cos(back) + along * np.sin(back)
        y = middle - offset * np.sin(back) + along * np.cos(back)
        ends.append((float((x + 0.5) / SIZE), float((y + 0.5) / SIZE)))
    return ends


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    return np.asarray(labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1)

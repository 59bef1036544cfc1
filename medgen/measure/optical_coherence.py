"""OCT B-scans: the retina's surface and pigment epithelium by least-cost paths; what lies between.

Layer search by dynamic programming over columns (after Chiu et al. 2010, Opt Express 18:19413);
thickness relative to the scan's own, since no scale in micrometres is known; dark pockets between
the two surfaces. Knows no label.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medgen.measure.anatomy import Anatomy, bounding_box, grey_square

SIZE = 256
_LEAST_COLUMNS = 96
_LEAST_THICKNESS, _MOST_THICKNESS = 14, 130
_STEP = 2
_FOLLOWED = 0.2
"""Share of the scan's own median step that a column must show for its layer to count as seen."""
_LEAP = 7
"""Rows in four columns at which a path is jumping, not following."""
_POCKET = 0.16
"""How far from vitreous to retina a pocket's grey may lie; outer nuclei are dark too."""


def measure_oct(image: np.ndarray) -> Anatomy:
    """Read one B-scan.

    Args:
        image: (H, H, 3) uint8, vitreous at the top.

    Returns:
        `retinal_thickness` (share of the frame's height), `foveal_thickness_ratio` (thinnest place
        of the middle over the median), `thickest_ratio`, `fluid_share` (dark pockets over the
        retina), `layer_contrast` (step in grey levels at the two surfaces),
        `surface_continuity` and `epithelium_continuity` (share of the columns between the scan's
        two edges in which the layer is seen where it was drawn, without a jump).
    """
    grey = grey_square(image, SIZE)
    columns = _seen_columns(grey)
    if len(columns) < _LEAST_COLUMNS:
        return Anatomy(missing=["retinal layers: too little of the scan is visible"])
    smooth = ndimage.gaussian_filter(grey[:, columns], (1.5, 2.5))
    surface = _surface(smooth)
    epithelium = _epithelium(smooth, surface)
    thickness = ndimage.median_filter((epithelium - surface).astype(float), 9)
    contrast = _contrast(smooth, surface)
    if contrast < 8 or np.median(thickness) <= _LEAST_THICKNESS:
        return Anatomy(missing=["retinal layers: no surface stands out from the vitreous"])
    middle = slice(len(columns) // 4, 3 * len(columns) // 4)
    typical = float(np.median(thickness))
    retina, fluid = _pockets(smooth, surface, epithelium)
    outlines = {name: _framed(mask, columns) for name, mask in (("fluid", fluid),)}
    lines = [
        (
            name,
            [
                (float(c + 0.5) / SIZE, float(r + 0.5) / SIZE)
                for c, r in zip(columns, path, strict=True)
            ],
        )
        for name, path in (("retinal surface", surface), ("pigment epithelium", epithelium))
    ]
    span = _span(grey)
    followed = _followed(grey[:, columns], surface, epithelium)
    return Anatomy(
        values={
            "retinal_thickness": typical / SIZE,
            "foveal_thickness_ratio": float(thickness[middle].min() / typical),
            "thickest_ratio": float(np.percentile(thickness, 98) / typical),
            "fluid_share": float(fluid.sum() / max(retina.sum(), 1)),
            "layer_contrast": contrast,
            "surface_continuity": float(followed[0].sum() / span),
            "epithelium_continuity": float(followed[1].sum() / span),
        },
        outlines=outlines,
        lines=lines,
        boxes=[("fluid", bounding_box(outlines["fluid"]))] if fluid.any() else [],
    )


def _lit(grey: np.ndarray) -> np.ndarray:
    """(columns,) bool: not empty frame."""
    return np.asarray(ndimage.gaussian_filter1d(grey.max(axis=0), 2) > 60)


def _span(grey: np.ndarray) -> int:
    """Columns from the first to the last that is not empty frame, gaps included."""
    lit = np.flatnonzero(_lit(grey))
    return int(lit[-1] - lit[0] + 1)


def _seen_columns(grey: np.ndarray) -> np.ndarray:
    """The longest run of columns that are not empty frame."""
    seen = _lit(grey)
    labels, count = ndimage.label(seen)
    if count == 0:
        return np.zeros(0, dtype=int)
    longest = np.argmax(np.bincount(labels)[1:]) + 1
    return np.flatnonzero(labels == longest)


def least_cost_path(cost: np.ndarray, step: int = _STEP) -> np.ndarray:
    """Row of the cheapest path from the first column to the last.

    Args:
        cost: (rows, columns) float; infinite where the path may not go.
        step: Most rows that the path may move between columns.

    Returns:
        (columns,) int rows.
    """
    rows, columns = cost.shape
    total = cost[:, 0].astype(np.float64)
    came = np.zeros((rows, columns), dtype=np.int64)
    offsets = np.arange(-step, step + 1)
    for column in range(1, columns):
        padded = np.pad(total, step, constant_values=np.inf)
        choices = np.stack([padded[step + o : step + o + rows] + 0.3 * abs(o) for o in offsets])
        best = choices.argmin(axis=0)
        came[:, column] = np.clip(np.arange(rows) + offsets[best], 0, rows - 1)
        total = choices[best, np.arange(rows)] + cost[:, column]
    path = np.zeros(columns, dtype=np.int64)
    path[-1] = int(np.argmin(total))
    for column in range(columns - 1, 0, -1):
        path[column - 1] = came[path[column], column]
    return path


def _surface(smooth: np.ndarray) -> np.ndarray:
    """The step from dark vitreous to retina."""
    below = ndimage.uniform_filter1d(np.roll(smooth, -5, axis=0), 7, axis=0)
    above = ndimage.uniform_filter1d(np.roll(smooth, 7, axis=0), 11, axis=0)
    far_above = ndimage.uniform_filter1d(np.roll(smooth, 24, axis=0), 33, axis=0)
    step = below - 0.6 * above - 0.9 * far_above
    step[:3], step[-_MOST_THICKNESS // 4 :] = step.min(), step.min()
    return least_cost_path(-step / max(float(step.std()), 1.0))


def _epithelium(smooth: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """The bright band with the darker choroid under it, a retina's thickness below the surface."""
    below = ndimage.uniform_filter1d(np.roll(smooth, -26, axis=0), 25, axis=0)
    above = ndimage.uniform_filter1d(np.roll(smooth, 9, axis=0), 9, axis=0)
    band = 1.5 * smooth - below - 0.5 * above
    band[-3:] = band.min()
    cost = -band / max(float(band.std()), 1.0)
    depth = np.arange(len(smooth))[:, None] - surface[None]
    allowed = (depth >= _LEAST_THICKNESS) & (depth <= _MOST_THICKNESS)
    return least_cost_path(np.where(allowed, cost, 50.0))


def _contrast(smooth: np.ndarray, surface: np.ndarray) -> float:
    places = np.arange(len(surface))
    inside = smooth[np.clip(surface + 6, 0, SIZE - 1), places]
    outside = smooth[np.clip(surface - 8, 0, SIZE - 1), places]
    return float(np.median(inside - outside))


def _followed(grey: np.ndarray, surface: np.ndarray, epithelium: np.ndarray) -> np.ndarray:
    """Where each path lies on a layer that is seen: (2, columns) bool, surface and epithelium.

    Args:
        grey: (rows, columns) float32, the columns of the paths.
        surface: (columns,) int rows.
        epithelium: (columns,) int rows.
    """
    fine = ndimage.gaussian_filter(grey, 1.5)
    steps = (
        _level(fine, surface, 2, 9) - _level(fine, surface, -10, -3),
        _level(fine, epithelium, -3, 4) - _level(fine, epithelium, 10, 24),
    )
    followed = []
    for step, path in zip(steps, (surface, epithelium), strict=True):
        moved = np.abs(path[4:] - path[:-4])
        leaps = np.concatenate([np.zeros(4, dtype=bool), moved >= _LEAP])
        followed.append((step >= _FOLLOWED * np.median(step)) & ~leaps)
    return np.stack(followed)


def _level(grey: np.ndarray, path: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Mean grey of each column from `start` to before `stop` rows below a path, (columns,)."""
    rows = np.clip(path[None] + np.arange(start, stop)[:, None], 0, len(grey) - 1)
    return np.asarray(grey[rows, np.arange(len(path))].mean(axis=0))


def _pockets(
    smooth: np.ndarray, surface: np.ndarray, epithelium: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """((rows, columns) bool retina, and the dark pockets in it)."""
    rows = np.arange(len(smooth))[:, None]
    retina = (rows > surface[None] + 3) & (rows < epithelium[None] - 2)
    vitreous = (rows < surface[None] - 6) & (rows > surface[None] - 40) & (smooth > 0.5)
    dark = float(np.median(smooth[vitreous])) if vitreous.sum() > 50 else float(smooth.min())
    bright = float(np.median(smooth[retina])) if retina.any() else dark + 1
    pocket = retina & (smooth < dark + _POCKET * (bright - dark))
    edge = max(3, smooth.shape[1] // 20)  # the frame cuts layers off there
    pocket[:, :edge] = pocket[:, -edge:] = False
    pocket = ndimage.binary_opening(pocket, np.ones((3, 3), dtype=bool))
    labels, count = ndimage.label(pocket)
    if count:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        pocket = np.isin(labels, np.flatnonzero(sizes >= 25))
    return retina, pocket


def _framed(mask: np.ndarray, columns: np.ndarray) -> np.ndarray:
    framed = np.zeros((SIZE, SIZE), dtype=bool)
    framed[:, columns] = mask
    return framed

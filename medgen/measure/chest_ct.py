"""Chest CT slices: body and lungs by threshold and shape, what fills the lungs, and the window.

Classical: Otsu's level within the body, connected parts, convex hulls of the lungs. Grey values
are whatever the publisher's window left, not Hounsfield units; a slice whose window has made soft
tissue as black as air is told apart first, and its lungs are not measured.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from medgen.measure.anatomy import Anatomy, Box, bounding_box, grey_square, otsu

SIZE = 128
_LEAST_BODY = 0.12
_LEAST_LUNG = 0.006
_LOWEST = 0.8
"""No lung's middle lies lower than this in the body; the gap between back and table does."""
_LEAST_SOFT = 0.52
"""Share of the body that must be brighter than air for a window in which lungs can be told."""


def measure_chest_ct(image: np.ndarray) -> Anatomy:
    """Read one axial slice.

    Args:
        image: (H, H, 3) uint8, the patient's right on the image's left.

    Returns:
        `body_area` (share of the frame), `soft_tissue_share` (of the body brighter than air), and
        where lungs can be told `lung_count`, `lung_area` (share of the body), `lung_balance`
        (smaller over larger lung) and `filled_right`, `filled_left` (share of each lung's convex
        hull that is not air, mediastinum and heart included where they bulge in).
    """
    grey = grey_square(image, SIZE)
    body = body_mask(grey)
    if body.mean() < _LEAST_BODY:
        return Anatomy(missing=["body: no outline found"])
    # Bone and contrast would pull the level up: they are cut off first.
    inside = np.minimum(grey[body], np.percentile(grey[body], 90))
    level = otsu(inside)
    soft = float((grey[body] > max(level, 12)).mean())
    values = {"body_area": float(body.mean()), "soft_tissue_share": soft}
    outlines = {"body": body}
    if soft < _LEAST_SOFT or level < 12:
        missing = ["lungs: the window leaves soft tissue as black as air"]
        return Anatomy(values, missing, outlines)
    lungs = lung_masks(grey, body, level)
    values["lung_count"] = float(len(lungs))
    if not lungs:
        return Anatomy(values, ["lungs: no air inside the body (no lung level)"], outlines)
    areas = {side: float(mask.sum()) for side, mask in lungs.items()}
    values["lung_area"] = sum(areas.values()) / float(body.sum())
    if len(areas) == 2:
        values["lung_balance"] = min(areas.values()) / max(areas.values())
    boxes: list[tuple[str, Box]] = []
    for side, mask in lungs.items():
        filled = hull(mask) & ~mask & body
        values[f"filled_{side}"] = float(filled.sum()) / float((filled | mask).sum())
        outlines[f"{side} lung"] = mask
        boxes.append((f"{side} lung", bounding_box(mask)))
    return Anatomy(values, [], outlines, boxes=boxes)


def body_mask(grey: np.ndarray) -> np.ndarray:
    """The body with all inside it, without the table: (H, H) bool."""
    bright = ndimage.gaussian_filter(grey, 0.7) > max(0.35 * otsu(grey), 10)
    closed = ndimage.binary_closing(np.pad(bright, 8), iterations=3)[8:-8, 8:-8]
    filled = ndimage.binary_fill_holes(closed)
    labels, count = ndimage.label(ndimage.binary_opening(filled, iterations=3))
    if count == 0:
        return np.zeros(grey.shape, dtype=bool)
    return np.asarray(labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1)


def lung_masks(grey: np.ndarray, body: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """The two largest air spaces inside the body, by the patient's side; one or none if so.

    Args:
        grey: (H, H) grey values.
        body: (H, H) bool.
        level: What is darker is air.
    """
    deep = ndimage.binary_erosion(body, iterations=3)
    air = ndimage.binary_opening(deep & (ndimage.gaussian_filter(grey, 0.7) <= level))
    air = _parted(air, body)
    labels, count = ndimage.label(air)
    if count == 0:
        return {}
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    rows = np.flatnonzero(body.any(axis=1))
    for part in range(1, count + 1):
        height = float(np.nonzero(labels == part)[0].mean())
        if (height - rows[0]) / (rows[-1] - rows[0]) > _LOWEST:
            sizes[part] = 0
    order = [part for part in np.argsort(-sizes) if sizes[part] >= _LEAST_LUNG * grey.size][:2]
    masks = [labels == part for part in order]
    columns = np.flatnonzero(body.any(axis=0))
    middle = (columns[0] + columns[-1]) / 2
    masks.sort(key=lambda mask: float(np.nonzero(mask)[1].mean()))
    if len(masks) == 2:
        right, left = (float(np.nonzero(mask)[1].mean()) for mask in masks)
        if right < middle < left:
            return {"right": masks[0], "left": masks[1]}
        masks = [max(masks, key=lambda mask: int(mask.sum()))]
    if not masks:
        return {}
    return {"right" if np.nonzero(masks[0])[1].mean() < middle else "left": masks[0]}


def _parted(air: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Cut lungs that touch each other along the body's midline, at the thinnest column there."""
    labels, count = ndimage.label(air)
    if count == 0:
        return air
    columns = np.flatnonzero(body.any(axis=0))
    middle, reach = (columns[0] + columns[-1]) // 2, max(2, len(columns) // 8)
    largest = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    spread = np.flatnonzero(largest.any(axis=0))
    if spread[0] > middle - reach or spread[-1] < middle + reach:
        return air
    heights = largest[:, middle - reach : middle + reach + 1].sum(axis=0)
    cut = air.copy()
    cut[:, middle - reach + int(np.argmin(heights))] = False
    return cut


def hull(mask: np.ndarray) -> np.ndarray:
    """Convex hull of a mask, (H, W) bool; the mask itself where it is a line or a point."""
    rows, columns = np.nonzero(mask)
    try:
        corners = ConvexHull(np.column_stack([columns, rows])).vertices
    except (QhullError, ValueError):
        return mask
    picture = Image.new("1", mask.shape[::-1])
    polygon = [(int(columns[i]), int(rows[i])) for i in corners]
    ImageDraw.Draw(picture).polygon(polygon, fill=1, outline=1)
    return np.asarray(picture) | mask

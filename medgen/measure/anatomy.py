"""What a classical reading of one image found: numbers, outlines, lines and boxes to draw.

The record that every anatomy module of this room returns. Knows no modality and no verdict; what a
number means, and how well it does on real images, is in `cards/*.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Anatomy:
    """One image, read.

    Attributes:
        values: Number by name; names, units and meaning as in the modality's card.
        missing: What could not be measured, and why, one line each.
        outlines: (S, S) bool by structure; S may be smaller than the image's side.
        lines: Name and polyline, (x, y) in fractions of the frame.
        boxes: Name and (left, top, right, bottom) in fractions of the frame.
    """

    values: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    outlines: dict[str, np.ndarray] = field(default_factory=dict)
    lines: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)
    boxes: list[tuple[str, Box]] = field(default_factory=list)


def grey_square(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32 grey values 0-255 of a square (H, H, 3) uint8 image."""
    reduced = Image.fromarray(image).convert("L")
    if reduced.width != size:
        reduced = reduced.resize((size, size), Image.Resampling.BOX)
    return np.asarray(reduced, dtype=np.float32)


def otsu(values: np.ndarray) -> float:
    """The grey level that best parts values in 0-255 in two classes (Otsu 1979)."""
    counts = np.histogram(values, bins=256, range=(0, 256))[0].astype(float)
    weight = np.cumsum(counts)
    moment = np.cumsum(counts * np.arange(256))
    total, whole = weight[-1], moment[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (whole * weight / total - moment) ** 2 / (weight * (total - weight))
    return float(np.nanargmax(np.nan_to_num(between, nan=-1.0)))


def bounding_box(mask: np.ndarray) -> Box:
    """(left, top, right, bottom) of a mask with at least one pixel, in fractions of the frame."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        columns[0] / width,
        rows[0] / height,
        (columns[-1] + 1) / width,
        (rows[-1] + 1) / height,
    )

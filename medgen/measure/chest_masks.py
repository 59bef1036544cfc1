"""Masked chest films as training arrays: films, structure targets, and which targets are known.

Reads the two kinds of masks of `masks.csv` (bit masks of chest structures, binary masks of both
lungs). Knows nothing of models.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medgen.data.images import load_square
from medgen.measure.segmentation import SIZE, STRUCTURES

RIGHT_LUNG, LEFT_LUNG, CARDIOMEDIASTINUM, OPACITY = 1, 2, 4, 16 | 32
_FINE = 2 * SIZE


@dataclass(frozen=True)
class MaskedFilms:
    """Films with masks; first axis is the film.

    `films` (n, 128, 128) uint8 grey; `targets` (n, 3, 128, 128) float32 coverage 0-1 by channel
    of `STRUCTURES`; `known` (n, 3) bool, whether a channel is annotated; `union` (n, 128, 128)
    float32 coverage of both lungs; `ratios` (n,) the annotators' cardiothoracic ratio or NaN;
    `paths`, `groups` and `splits` as in the manifest.
    """

    films: np.ndarray
    targets: np.ndarray
    known: np.ndarray
    union: np.ndarray
    ratios: np.ndarray
    paths: list[str]
    groups: list[str]
    splits: list[str]


def square_mask(mask: Image.Image, size: int) -> np.ndarray:
    """Fit a label image into (size, size) like `medgen.data.images.square`, labels unmixed."""
    scale = size / max(mask.size)
    width, height = (max(1, round(side * scale)) for side in mask.size)
    canvas = np.zeros((size, size), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    resized = mask.convert("L").resize((width, height), Image.Resampling.NEAREST)
    canvas[top : top + height, left : left + width] = np.asarray(resized)
    return canvas


def bit_mask_structures(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structures of a (H, W) bit mask: ((3, H, W) bool, (3,) known).

    A lung that its annotators left out but whose opacity they drew (two films) is taken from the
    opacity; the two outlines agree elsewhere where a whole lung is opaque.
    """
    right, left, heart = ((bits & bit) > 0 for bit in (RIGHT_LUNG, LEFT_LUNG, CARDIOMEDIASTINUM))
    opacity = (bits & OPACITY) > 0
    if heart.any():
        midline = np.nonzero(heart)[1].mean()
        columns = np.arange(bits.shape[1])[None, :]
        if right.sum() < 0.1 * left.sum():
            right = opacity & ~left & (columns < midline)
        elif left.sum() < 0.1 * right.sum():
            left = opacity & ~right & (columns >= midline)
    structures = np.stack([right, left, heart])
    return structures, np.asarray(structures.any(axis=(1, 2)))


def binary_mask_structures(lungs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Structures of a (H, W) bool mask of both lungs: two separate parts get their sides."""
    structures = np.zeros((len(STRUCTURES), *lungs.shape), dtype=bool)
    labels, count = ndimage.label(lungs)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    largest = np.argsort(sizes)[::-1][:2] + 1
    if count < 2 or sizes[largest[1] - 1] < 0.2 * sizes[largest[0] - 1]:
        return structures, np.zeros(len(STRUCTURES), dtype=bool)
    parts = [labels == label for label in largest]
    parts.sort(key=lambda part: np.nonzero(part)[1].mean())
    structures[0], structures[1] = parts
    return structures, np.array([True, True, False])


def _coverage(mask: np.ndarray) -> np.ndarray:
    factor = mask.shape[-1] // SIZE
    shape = (*mask.shape[:-2], SIZE, factor, SIZE, factor)
    return mask.reshape(shape).mean(axis=(-3, -1), dtype=np.float32)


def read_masked_films(data: str | Path) -> MaskedFilms:
    """Read every masked chest film of a data folder with `manifest.csv` and `masks.csv`."""
    data = Path(data)
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        manifest = {row["path"]: row for row in csv.DictReader(stream)}
    with (data / "masks.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["image"].startswith("cxr/")]
    films, targets, known, union = [], [], [], []
    for row in rows:
        mask = square_mask(Image.open(data / row["mask"]), _FINE)
        if "bit mask" in row["kind"]:
            structures, certain = bit_mask_structures(mask)
            lungs = structures[0] | structures[1]
        else:
            lungs = mask > 0
            structures, certain = binary_mask_structures(lungs)
        pixels = load_square(data / row["image"], _FINE).astype(np.float32).mean(axis=-1)
        films.append(_coverage(pixels).round().astype(np.uint8))
        targets.append(_coverage(structures))
        known.append(certain)
        union.append(_coverage(lungs))
    return MaskedFilms(
        films=np.stack(films),
        targets=np.stack(targets),
        known=np.stack(known),
        union=np.stack(union),
        ratios=np.array([float(row["ctr_from_mask"] or "nan") for row in rows]),
        paths=[row["image"] for row in rows],
        groups=[manifest[row["image"]]["group"] for row in rows],
        splits=[manifest[row["image"]]["split"] for row in rows],
    )

"""Retinal vessels of a fundus photograph: a small segmenter, and how much of the field they cover.

U-Net (Ronneberger et al. 2015) at full resolution on the green channel, freed of shading. Knows
pixels and masks; which density is normal is not known here, for no label says.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from medgen.errors import BadInput
from medgen.measure.segmentation import load_segmenter

SIZE = 256
WEIGHTS = Path(__file__).parent / "weights" / "vessels"
FIELD_LEVEL = 18
_SHADING = 12.0


def field_of_view(image: np.ndarray) -> np.ndarray:
    """Where a fundus photograph shows the eye: (H, H) bool of (H, H, 3) uint8."""
    bright = ndimage.uniform_filter(image.max(axis=2).astype(np.float32), 5) > FIELD_LEVEL
    labels, count = ndimage.label(bright)
    if count == 0:
        return np.zeros(image.shape[:2], dtype=bool)
    largest = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    return np.asarray(ndimage.binary_fill_holes(largest))


def to_field(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A photograph as the segmenter sees it.

    Args:
        image: (H, H, 3) uint8, square.

    Returns:
        ((256, 256) float32 green channel minus its shading, over its deviation, 0 outside the
        field; (256, 256) bool field of view).

    Raises:
        BadInput: Another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise BadInput(
            f"a fundus photograph must be uint8 of shape (H, H, 3), not {image.dtype} "
            f"{image.shape}: load it with medgen.data.images.load_square"
        )
    if image.shape[0] != SIZE:
        image = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))
    field = field_of_view(image)
    green = image[..., 1].astype(np.float32)
    weight = ndimage.gaussian_filter(field.astype(np.float32), _SHADING)
    shading = ndimage.gaussian_filter(green * field, _SHADING) / np.maximum(weight, 1e-3)
    flat = (green - shading) * field
    deviation = float(flat[field].std()) if field.any() else 1.0
    return flat / max(deviation, 1.0), field


@lru_cache
def bundled_vessels() -> torch.nn.Module:
    """The bundled vessel segmenter, loaded once a process.

    Raises:
        BadInput: Its weights are missing or unreadable.
    """
    return load_segmenter(WEIGHTS)


@torch.inference_mode()
def vessel_probabilities(image: np.ndarray, model: torch.nn.Module | None = None) -> np.ndarray:
    """(256, 256) float32 probability of vessel, 0 outside the field, of (H, H, 3) uint8."""
    flat, field = to_field(image)
    pixels: Tensor = torch.from_numpy(flat)[None, None]
    chances = (model or bundled_vessels())(pixels).sigmoid()[0, 0].numpy()
    return np.asarray(chances * field, dtype=np.float32)


def vessel_density(chances: np.ndarray, field: np.ndarray) -> float:
    """Share (0-1) of the field that vessels cover; 0 without a field."""
    return float((chances > 0.5)[field].mean()) if field.any() else 0.0

"""Evaluation's own reading of chest films: a second segmenter that no loop has optimised.

Another architecture, other seeds and other folds than the verifier's segmenter, with the same
geometry (`medgen.measure.chest`): it measures what the generator drew, and is never consulted
while drawing. Its bundled members, each trained without another fold of
patients, are averaged.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from torch import nn

from medgen.measure.chest import cardiothoracic_ratio, implausible_lungs, lung_opacity
from medgen.measure.segmentation import load_segmenter, probabilities


@lru_cache
def _members() -> tuple[nn.Module, ...]:
    folder = Path(str(resources.files("medgen.evaluation"))) / "weights" / "chest_segmenter"
    return tuple(load_segmenter(member) for member in sorted(folder.glob("member*")))


def segment(images: np.ndarray) -> np.ndarray:
    """Structure probabilities of square films.

    Args:
        images: (n, H, H, 3) uint8.

    Returns:
        (n, 3, 128, 128) float32 in [0, 1]: right lung, left lung, cardiomediastinum.
    """
    return np.mean([probabilities(member, images) for member in _members()], axis=0)


def cardiothoracic_ratios(images: np.ndarray) -> list[float | None]:
    """Cardiothoracic ratio of each (n, H, H, 3) uint8 film; None where it abstains."""
    return [cardiothoracic_ratio(masks)[0] for masks in segment(images)]


def lung_opacities(images: np.ndarray) -> list[tuple[float, float] | None]:
    """(right, left) opacity, 0-1 and the patient's sides, of each film; None without lungs."""
    return [
        None if implausible_lungs(masks) else _sides(image, masks)
        for image, masks in zip(images, segment(images), strict=True)
    ]


def _sides(image: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    readings = lung_opacity(image, masks)
    return readings["right"], readings["left"]

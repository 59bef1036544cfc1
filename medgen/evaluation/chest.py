"""Evaluation's own reading of chest films: a second segmenter that no loop has optimised.

Another architecture, other seeds and other folds than the verifier's segmenter, with the same
geometry (`medgen.measure.chest`): it measures what the generator drew, and is never consulted
while drawing. Its bundled members, each trained without another fold of patients, are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from torch import nn

from medgen.measure.chest import cardiothoracic_ratio, clean, implausible_lungs, lung_opacity
from medgen.measure.segmentation import load_segmenter, probabilities


@dataclass(frozen=True)
class Film:
    """What was read from one film.

    `ratio` is the cardiothoracic ratio (0-1); `opacities` are (right, left), 0-1 and the
    patient's sides. None where the masks are not believable.
    """

    ratio: float | None
    opacities: tuple[float, float] | None


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


def read_films(images: np.ndarray) -> list[Film]:
    """Ratio and opacities of each (n, H, H, 3) uint8 film, segmented once."""
    return [_film(image, masks) for image, masks in zip(images, segment(images), strict=True)]


def cardiothoracic_ratios(images: np.ndarray) -> list[float | None]:
    """Cardiothoracic ratio of each (n, H, H, 3) uint8 film; None where it abstains."""
    return [cardiothoracic_ratio(masks)[0] for masks in segment(images)]


def lung_opacities(images: np.ndarray) -> list[tuple[float, float] | None]:
    """(right, left) opacity, 0-1 and the patient's sides, of each film; None without lungs."""
    return [film.opacities for film in read_films(images)]


def _film(image: np.ndarray, masks: np.ndarray) -> Film:
    cleaned = clean(masks)
    ratio = cardiothoracic_ratio(masks, cleaned)[0]
    if implausible_lungs(masks, cleaned):
        return Film(ratio, None)
    readings = lung_opacity(image, masks, cleaned)
    return Film(ratio, (readings["right"], readings["left"]))

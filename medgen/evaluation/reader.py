"""Evaluation's own reader: does an image look like what was asked, to an eye the loop never used?

Another architecture, input size, seed and validation fold than the verifier's reader, and its own
weights; figures in `weights/reader/card.yaml`. For agreement rates over many images, not for
verdicts on one. Knows nothing of the verifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from medgen.measure.reader import POPULATION, Reader, finding_probability

WEIGHTS = Path(__file__).parent / "weights" / "reader"


@dataclass(frozen=True)
class Reading:
    """One image's reading: modality ("none" for none of the five) and findings.

    `findings` maps canonical finding names of that modality to probabilities (0.5 where an image
    tells nothing), only those that the reader judges well enough on held-out images of the
    film's population.
    """

    modality: str
    modality_probability: float
    findings: dict[str, float]


@lru_cache
def reader_card() -> dict:
    """The figures on held-out images, by head and by finding."""
    return dict(yaml.safe_load((WEIGHTS / "card.yaml").read_text(encoding="utf-8")))


@lru_cache
def reader_heads() -> dict[str, list[str]]:
    """The classes of each of the reader's heads; a head's classes exclude each other."""
    return {head.name: head.classes for head in _reader().heads}


@lru_cache
def _reader() -> Reader:
    return Reader.load(WEIGHTS)


def features(images: np.ndarray) -> np.ndarray:
    """The reader's penultimate vectors, (n, 224) float32 of unit length, of (n, H, H, 3) uint8."""
    return _reader().forward(images)[0]


def read(images: np.ndarray) -> list[Reading]:
    """Read images.

    Args:
        images: (n, H, H, 3) uint8, square, at least 32 pixels a side.

    Returns:
        One reading an image.

    Raises:
        BadInput: The array has another shape or type, or is empty.
    """
    table = reader_card()["findings"]
    readings = []
    for reading in _reader().read(images):
        population = "child" if reading.heads[POPULATION]["child"] > 0.5 else "adult"
        findings = {
            finding: finding_probability(
                reading.heads[entry["head"]], entry["shows"], entry["intercept"], entry["slope"]
            )
            for finding, entries in table.get(reading.modality, {}).items()
            for entry in entries
            if entry["measurable"] and entry["population"] in (None, population)
        }
        probability = reading.modality_probabilities[reading.modality]
        readings.append(Reading(reading.modality, probability, findings))
    return readings

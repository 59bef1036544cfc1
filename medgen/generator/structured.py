"""The structured condition: numbers and categories that a drawing must obey, as one vector.

A value is given or not given; "not given" is a condition of its own (dropout in training, absence
in use). Names and units are the contract with captions, composer and refiner:

- cardiothoracic_ratio: 0.30-0.80, cardiac over thoracic width
- opacity_right, opacity_left: 0-1, density of the patient's right or left lung
- view: "PA", "AP" or "AP supine"; age_group: "child" or "adult"; sex: "female" or "male"
- source: the collection an image came from (its texture); not given means any that fits the rest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

RATIO = "cardiothoracic_ratio"

NUMBERS: dict[str, tuple[float, float]] = {
    RATIO: (0.46, 0.04),
    "opacity_right": (0.36, 0.1),
    "opacity_left": (0.36, 0.1),
}
"""Each number with the centre and scale that standardise it (those of the adult training films)."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "view": ("PA", "AP", "AP supine"),
    "age_group": ("child", "adult"),
    "sex": ("female", "male"),
    "source": (
        "ieee8023_covid",
        "kermany_pneumonia",
        "radiography_adult",
        "nickparvar_tumor",
        "lung_cancer_filtered",
        "iq_oth_nccd",
        "eye4class",
        "hei_med",
        "drive",
        "chasedb1",
        "srf_bern",
        "duke_dme_subject01",
    ),
}

WIDTH = 2 * len(NUMBERS) + sum(len(values) for values in CATEGORIES.values())
"""Entries of the vector: per number (value, given), per category one-hot."""


def encode(conditions: Sequence[Mapping[str, float | str]]) -> Tensor:
    """Vectors of structured conditions: (batch, WIDTH) float; all zeros where nothing is given.

    Raises:
        ValueError: An unknown name or category value.
    """
    vectors = torch.zeros(len(conditions), WIDTH)
    for row, condition in enumerate(conditions):
        unknown = set(condition) - NUMBERS.keys() - CATEGORIES.keys()
        if unknown:
            raise ValueError(f"unknown structured condition {sorted(unknown)}")
        column = 0
        for name, (centre, scale) in NUMBERS.items():
            if name in condition:
                vectors[row, column] = (float(condition[name]) - centre) / scale
                vectors[row, column + 1] = 1.0
            column += 2
        for name, values in CATEGORIES.items():
            if name in condition:
                vectors[row, column + values.index(str(condition[name]))] = 1.0
            column += len(values)
    return vectors


def opposite(condition: Mapping[str, float | str]) -> dict[str, float | str]:
    """The condition with its numbers mirrored about their centres.

    Empty where no cardiothoracic ratio is given: pushed away from clear lungs by opacities alone,
    films white out (docs/experiments/generator.md).
    """
    if RATIO not in condition:
        return {}
    mirrored = {
        name: 2 * NUMBERS[name][0] - float(value)
        for name, value in condition.items()
        if name in NUMBERS
    }
    return {**condition, **mirrored}

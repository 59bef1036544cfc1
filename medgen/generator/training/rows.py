"""Training rows: which pictures, how often, and what is said of each in a draw.

Square-root oversampling of rare modalities and classes; conditions dropped for guidance. Knows no
tensors.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medgen.generator import captions
from medgen.generator.training.config import DropoutConfig
from medgen.generator.training.row_index import Row
from medgen.knowledge.cards import modality_cards

SIDED_WORDS = {"left", "right", "left-sided", "right-sided", "od", "os", "bilateral"}


def sampling_weights(rows: Sequence[Row]) -> np.ndarray:
    """Square-root oversampling of modalities, and of classes inside each: weights that sum to 1."""
    numbers: dict[tuple[str, str], int] = {}
    of_row = np.fromiter(
        (numbers.setdefault(_stratum(row), len(numbers)) for row in rows), np.int32, len(rows)
    )
    counts = np.bincount(of_row)
    modals: dict[str, int] = defaultdict(int)
    roots: dict[str, float] = defaultdict(float)
    for (modal, _), count in zip(numbers, counts.tolist(), strict=True):
        modals[modal] += count
        roots[modal] += count**0.5
    each = [
        modals[modal] ** 0.5 * (count**-0.5 / roots[modal])
        for (modal, _), count in zip(numbers, counts.tolist(), strict=True)
    ]
    weights = np.array(each)[of_row]
    return weights / weights.sum()


def _stratum(row: Row) -> tuple[str, str]:
    ratio = float(row.get("cardiothoracic_ratio") or 0)
    return row["modal"], f"{row['source']} {row['label']} {ratio > 0.505}"


class Draws:
    """Which rows a step sees: as many as the batch, with replacement, by their weights."""

    def __init__(self, rows: Sequence[Row], seed: int, batch: int) -> None:
        shares = sampling_weights(rows).cumsum()
        self.shares = shares / shares[-1]
        self.seed, self.batch = seed, batch

    def of(self, step: int) -> tuple[np.ndarray, np.random.Generator]:
        """Row numbers (batch,) of a step, and the generator for what else is drawn in it."""
        generator = np.random.default_rng([self.seed, step])
        picks = self.shares.searchsorted(generator.random(self.batch), side="right")
        return picks, generator


def draw_conditions(
    row: Row, dropout: DropoutConfig | None, random_: random.Random
) -> tuple[str, str | None, dict[str, float | str]]:
    """A caption, a modality and structured conditions of a row, each of them sometimes dropped."""
    dropout = dropout or DropoutConfig(all=0, text=0, modality=0, structured=0, structured_each=0)
    if random_.random() < dropout.all:
        return "", None, {}
    text = "" if random_.random() < dropout.text else captions.caption(row, random_)
    modal = None if random_.random() < dropout.modality else row["modal"]
    conditions = captions.structured_conditions(row)
    if random_.random() < dropout.structured:
        conditions = {}
    kept = {k: v for k, v in conditions.items() if random_.random() >= dropout.structured_each}
    return text, modal, kept


def may_be_mirrored(row: Row) -> bool:
    """Whether a mirrored picture is still true: no side in the modality's card or in the text."""
    words = f"{row['text']} {row['label']}".lower().split()
    sided = any(word.strip(".,;:()") in SIDED_WORDS for word in words)
    return not (sided or modality_cards()[row["modal"]].sided)

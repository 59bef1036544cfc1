"""Training rows: which pictures, how often, and what is said of each in a draw.

Square-root oversampling of rare modalities and classes; conditions dropped for guidance. Knows no
tensors.
"""

from __future__ import annotations

import csv
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgen.errors import BadInput
from medgen.generator import captions
from medgen.generator.training.config import DropoutConfig
from medgen.knowledge.cards import modality_cards

Row = dict[str, str]

NEEDED = ("path", "modal", "label", "split", "group", "source")


def read_rows(table: Path, joined: Sequence[Path]) -> list[Row]:
    """Rows of `split=train` with their image's `index`, other tables joined by `path`.

    Raises:
        BadInput: A column that is missing, no training row, or a modality without a card.
    """
    extra: dict[str, Row] = defaultdict(dict)
    for path in joined:
        for row in _read(path, ("path",)):
            extra[row["path"]].update({k: v for k, v in row.items() if v})
    rows = [
        {**row, **extra[row["path"]], "index": str(index)}
        for index, row in enumerate(_read(table, NEEDED))
    ]
    rows = [row for row in rows if row["split"] == "train"]
    if not rows:
        raise BadInput(f"{table} has no row with split=train")
    unknown = {row["modal"] for row in rows} - modality_cards().keys()
    if unknown:
        raise BadInput(
            f"{table}: no modality card for {sorted(unknown)[0]}: add one to the folder of "
            "MEDGEN_MODALITY_CARDS"
        )
    return rows


def _read(path: Path, needed: Sequence[str]) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        if missing:
            raise BadInput(f"{path} has no column {missing[0]!r}")
        return list(reader)


def sampling_weights(rows: list[Row]) -> np.ndarray:
    """Square-root oversampling of modalities, and of classes inside each: weights that sum to 1."""

    def stratum(row: Row) -> tuple[str, str]:
        ratio = float(row.get("cardiothoracic_ratio") or 0)
        return row["modal"], f"{row['source']} {row['label']} {ratio > 0.505}"

    modals = Counter(row["modal"] for row in rows)
    strata = Counter(stratum(row) for row in rows)
    roots: dict[str, float] = defaultdict(float)
    for (modal, _), count in strata.items():
        roots[modal] += count**0.5
    weights = np.array(
        [
            modals[row["modal"]] ** 0.5 * (strata[stratum(row)] ** -0.5 / roots[row["modal"]])
            for row in rows
        ]
    )
    return weights / weights.sum()


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

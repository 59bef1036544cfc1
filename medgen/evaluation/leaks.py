"""What the tables of an evaluation share and should not: patients and prompts.

Knows tables only; what the pictures share is `privacy.py`'s part.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from rapidfuzz import fuzz, process

from medgen.evaluation.tables import ImageTable

# A prompt this alike to a training caption (rapidfuzz ratio, 0-100) differs by a typing error.
ALIKE = 97.0


def strangers(real: ImageTable, train: ImageTable) -> tuple[ImageTable, list[str]]:
    """The real images whose patient (`group`) the training table does not have.

    Returns:
        The table without the others, and a warning for each thing that weakens the separation.
    """
    known = set(train.groups)
    kept = real.where(lambda row: row.group not in known)
    warnings = []
    if len(kept) < len(real):
        warnings.append(
            f"{len(real) - len(kept)} of {len(real)} real images are of groups that the train "
            "table has too: they were left out here; test on patients that nobody trained on"
        )
    ungrouped = [table.name for table in (real, train) if not table.grouped]
    if ungrouped:
        warnings.append(
            f"no group column in the {' and the '.join(ungrouped)} table: images of one patient "
            "may be on both sides, which nobody can see"
        )
    return kept, warnings


class Matches(NamedTuple):
    """Which prompts are training captions: (n,) true where word for word, and where nearly."""

    exact: np.ndarray
    alike: np.ndarray


def caption_matches(table: ImageTable, train: ImageTable) -> Matches:
    """Compare each row's text with the training captions of its modality.

    Case, punctuation and spaces do not count; `alike` includes `exact`. Empty texts match nothing.
    """
    captions = {
        modal: {_plain(row.text) for row in train.rows if row.modal == modal}
        for modal in table.modals
    }
    listed = {modal: list(texts) for modal, texts in captions.items()}
    alike: dict[tuple[str, str], bool] = {}
    exact = []
    for row in table.rows:
        key = row.modal, _plain(row.text)
        exact.append(bool(key[1]) and key[1] in captions[row.modal])
        if key not in alike:
            alike[key] = exact[-1] or (
                bool(key[1])
                and process.extractOne(
                    key[1], listed[row.modal], scorer=fuzz.ratio, score_cutoff=ALIKE
                )
                is not None
            )
    near = [alike[row.modal, _plain(row.text)] for row in table.rows]
    return Matches(np.array(exact, dtype=bool), np.array(near, dtype=bool))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))

"""Image-text tables as cases: their rows, their short ids, and the findings that a caption names.

Knows the columns path, text, modal and the cards' phrases; nothing of vectors.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards

REQUIRED = ("path", "text", "modal")
DENIED_BEFORE = r"(?:\bno|\bwithout|\bnot|\bfree of|\babsence of|\bnegative for)(?:\W+\w+){0,3}\W+$"


def case_id(path: str) -> str:
    """The number of a case: a short hash of its image's path as the table gives it."""
    return hashlib.sha256(path.encode()).hexdigest()[:10]


@lru_cache
def _finding_pattern(modality: str) -> tuple[re.Pattern[str], dict[str, str]]:
    cards = finding_cards().get(modality, {}).values()
    names = {name.lower(): card.name for card in cards for name in (card.name, *card.synonyms)}
    longest = sorted(names, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest)) or '(?!)'})\b"), names


def findings_in(text: str, modality: str) -> list[str]:
    """Canonical findings whose names stand in a caption and are not denied right before."""
    pattern, names = _finding_pattern(modality)
    lower = text.lower()
    found = {
        names[match[0]]: None
        for match in pattern.finditer(lower)
        if not re.search(DENIED_BEFORE, lower[: match.start()])
    }
    return list(found)


def table_rows(table: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, each with path, text and modal.

    Raises:
        BadInput: No such file, no CSV, a column missing or a field empty.
    """
    if not table.is_file():
        raise BadInput(f"no table at {table}: give a CSV file with columns {', '.join(REQUIRED)}")
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or [])]
            if missing:
                raise BadInput(
                    f"{table} has no column {', '.join(missing)}: it needs path,text,modal"
                )
            for number, row in enumerate(reader, start=2):
                if not (row["path"] and row["text"] and row["modal"]):
                    raise BadInput(f"{table} line {number}: path, text and modal must be filled")
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table} cannot be read as CSV ({error})") from error

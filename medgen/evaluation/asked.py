"""What a row asks of one finding, of a side and of the heart's size, read from its findings.

Requests and reports name few findings; the finding cards say what those imply and exclude. Knows
rows and cards; knows no image and no scorer.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml

from medgen.evaluation.tables import Row
from medgen.knowledge.cards import finding_cards

CHEST_FILM = "Chest X-ray"
RATIO = "cardiothoracic_ratio"
OPACITY = "lung opacity"


@lru_cache
def numbers() -> dict:
    """The suite's numbers, with their sources, from `alignment.yaml`."""
    path = Path(__file__).with_name("alignment.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def closure(modal: str, names: Iterable[str]) -> set[str]:
    """Findings with all that they imply."""
    cards = finding_cards().get(modal, {})
    reached, open_ends = set(), list(names)
    while open_ends:
        name = open_ends.pop()
        if name not in reached:
            reached.add(name)
            open_ends += cards[name].implies if name in cards else []
    return reached


def stated(row: Row, status: str) -> set[str]:
    """The findings that a row says are "present" or "absent"."""
    return {finding.finding for finding in row.findings if finding.status == status}


def asked(
    row: Row, finding: str, rivals: Iterable[str] = ()
) -> Literal["present", "absent"] | None:
    """Whether a row asks for a finding, asks for its absence, or leaves it open.

    Absent is what is said to be absent, what a present finding excludes ("clear lungs" excludes
    pneumonia), what implies something absent, and what a present rival rules out.

    Args:
        row: A row with its findings.
        finding: A canonical name of the row's modality.
        rivals: Findings that the source of the labels never gives together with this one.
    """
    cards = finding_cards().get(row.modal, {})
    present = closure(row.modal, stated(row, "present"))
    absent = stated(row, "absent")
    if finding in present:
        return "present"
    excluded = any(finding in cards[name].excludes for name in present if name in cards)
    if excluded or closure(row.modal, [finding]) & absent or present & set(rivals):
        return "absent"
    return None


def asked_side(row: Row) -> Literal["left", "right"] | None:
    """The one side on which a row asks for opacity in a lung; None for both, neither or another."""
    sides = {
        finding.side
        for finding in row.findings
        if finding.status == "present" and OPACITY in closure(row.modal, [finding.finding])
    }
    named = sides - {None}
    if named == {"left"}:
        return "left"
    return "right" if named == {"right"} else None


def asked_ratio(row: Row) -> float | None:
    """The cardiothoracic ratio that a row asks for, in 0-1.

    The table's column `cardiothoracic_ratio`, else the middle of the range that a measurement of
    that name expects; what was measured is no request.
    """
    try:
        return float(row.more[RATIO])
    except (KeyError, ValueError):
        pass
    for finding in row.findings:
        for measurement in finding.measurements:
            expected = measurement.expected
            named = measurement.name.replace(" ", "_") == RATIO
            if named and expected and expected[0] is not None and expected[1] is not None:
                return (expected[0] + expected[1]) / 2
    return None

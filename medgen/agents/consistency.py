"""Whether the findings of one request can be true together, and one record a finding.

Knows the cards' `implies` and `excludes`; knows no words.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from medgen.agents.language import rules
from medgen.errors import BadInput
from medgen.knowledge.cards import FindingCard, finding_cards
from medgen.records import Finding

_SHOWN = ("present", "uncertain")
_GRADES = {None: -1, "mild": 0, "moderate": 1, "severe": 2}


def implied(finding: str, modality: str) -> list[str]:
    """Everything that a finding entails in a modality, nearest first."""
    cards = finding_cards().get(modality, {})
    found: list[str] = []
    queue = list(cards[finding].implies) if finding in cards else []
    while queue:
        name = queue.pop(0)
        if name not in found and name != finding:
            found.append(name)
            queue += cards[name].implies if name in cards else []
    return found


def _together(first: Finding, second: Finding) -> Finding:
    sides = {first.side, second.side} - {None}
    places = dict.fromkeys(f.location for f in (first, second) if f.location)
    more = max(first, second, key=lambda f: _GRADES[f.severity])
    return first.model_copy(
        update={
            "side": sides.pop() if len(sides) == 1 else "bilateral" if sides else None,
            "location": " and ".join(places) or None,
            "severity": more.severity,
            "status": "present" if "present" in (first.status, second.status) else first.status,
        }
    )


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """One record for a finding that is named twice with the same standing (shown, absent, past)."""
    result: list[Finding] = []
    for finding in findings:
        for position, other in enumerate(result):
            shown = finding.status in _SHOWN and other.status in _SHOWN
            same = shown or finding.status == other.status == "historical"
            same = same or (finding.status, finding.side) == (other.status, other.side)
            if finding.finding == other.finding and same:
                result[position] = _together(other, finding)
                break
        else:
            result.append(finding)
    return result


def _overlap(first: Finding, second: Finding) -> bool:
    return (
        first.side == second.side
        or "bilateral" in (first.side, second.side)
        or not (first.side and second.side)
    )


def _excluded(first: Finding, second: Finding, cards: dict[str, FindingCard]) -> bool:
    one, two = cards.get(first.finding), cards.get(second.finding)
    return (one is not None and second.finding in one.excludes) or (
        two is not None and first.finding in two.excludes
    )


def _shown_and_denied(shown: Finding, denied: Finding, modality: str) -> bool:
    if not _overlap(shown, denied) or (denied.location and denied.location != shown.location):
        return False
    if shown.finding == denied.finding:
        return True
    may_lack = rules("pathology")["may_lack"].get(shown.finding, [])
    entailed = [name for name in implied(shown.finding, modality) if name not in may_lack]
    return denied.finding in entailed


def check_contradictions(
    findings: Sequence[Finding], modality: str, normal_regions: Sequence[str] = ()
) -> None:
    """Refuse findings that cannot be true together.

    Args:
        findings: As asked.
        modality: Whose cards say what excludes what.
        normal_regions: Regions that the prompt calls normal without a card saying what that is.

    Raises:
        BadInput: Naming the first two that contradict, and what to do.
    """
    cards = finding_cards().get(modality, {})
    for first, second in combinations(findings, 2):
        shown = [f for f in (first, second) if f.status in _SHOWN]
        denied = [f for f in (first, second) if f.status == "absent"]
        clash = len(shown) == 2 and _excluded(first, second, cards)
        if shown and denied:
            clash = clash or _shown_and_denied(shown[0], denied[0], modality)
        if clash:
            names = " and ".join(
                f'"no {f.finding}"' if f.status == "absent" else f'"{f.finding}"'
                for f in (first, second)
            )
            raise BadInput(
                f"the prompt asks for {names}, which contradict each other: drop one of them "
                '(or say "otherwise normal")'
            )
    for finding in findings:
        card = cards.get(finding.finding)
        abnormal = card is not None and card.kind == "abnormal" and finding.status in _SHOWN
        if abnormal and card is not None and card.region in normal_regions and not finding.location:
            raise BadInput(
                f'the prompt calls the {card.region} normal and asks for "{finding.finding}": '
                "drop one of them"
            )

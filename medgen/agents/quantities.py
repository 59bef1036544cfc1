"""Numbers that a prompt gives: lengths, and values of the quantities that cards measure.

Knows units and the measures of the finding cards; knows no images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from medgen.agents.language import Lexicon, Token, rules
from medgen.agents.modifiers import Modifier
from medgen.errors import BadInput
from medgen.knowledge.cards import FindingCard, MeasureCard, finding_cards
from medgen.records import AgeGroup, View


@dataclass(frozen=True)
class Asked:
    """A measured quantity with the value asked for, and the tokens that said so."""

    name: str
    value: float
    taken: range


def lengths(tokens: Sequence[Token]) -> list[Modifier]:
    """Lengths in mm, the longest of "2 x 3 cm"."""
    units = rules("language")["length_units"]
    found = []
    index = 0
    while index < len(tokens):
        numbers, end = [], index
        while end < len(tokens) and tokens[end].is_number:
            numbers.append(float(tokens[end].key))
            end += 1
            joined = end + 1 < len(tokens) and tokens[end + 1].is_number
            if joined and tokens[end].key in ("x", "\u00d7", "by", "-", "to"):
                end += 1
        if numbers and end < len(tokens) and tokens[end].key in units:
            found.append(Modifier("size", max(numbers) * units[tokens[end].key], index, end + 1))
            end += 1
        index = max(end, index + 1)
    return found


@cache
def _measures(modality: str) -> Lexicon:
    lexicon = Lexicon()
    for card in finding_cards().get(modality, {}).values():
        if card.measure is not None:
            name = card.measure.name
            lexicon.add(name, "measure", name)
            for phrase in rules("language")["measures"].get(name, []):
                lexicon.add(phrase, "measure", name, upper=len(phrase) <= 3)
    return lexicon


def asked_values(tokens: Sequence[Token], modality: str) -> list[Asked]:
    """Quantities with a value, such as "cardiothoracic ratio of 0.57"."""
    found = []
    for match in _measures(modality).scan(tokens):
        at = match.end
        while at < len(tokens) and tokens[at].key in ("of", "is", ":", "=", "about", "~", "at"):
            at += 1
        if at < len(tokens) and tokens[at].is_number:
            found.append(Asked(match.value, float(tokens[at].key), range(match.start, at + 1)))
    return found


def _within(value: float, bounds: tuple[float | None, float | None]) -> bool:
    low, high = bounds
    return (low is None or value >= low) and (high is None or value <= high)


def holds_for(measure: MeasureCard, view: View | None, age_group: AgeGroup | None) -> bool:
    """Whether a measure's ranges hold for a patient and projection (not known counts as yes)."""
    fits_age = measure.population == "any" or age_group in (None, measure.population)
    return fits_age and (view is None or not measure.views or view in measure.views)


def meant_by(
    asked: Asked, modality: str, view: View | None, age_group: AgeGroup | None
) -> FindingCard | None:
    """The finding that a value amounts to, None where its ranges do not hold (children, AP films).

    Raises:
        BadInput: A value that is impossible for the quantity.
    """
    low, high = rules("language")["possible_values"].get(asked.name, (0, float("inf")))
    if not low <= asked.value <= high:
        raise BadInput(f"a {asked.name} of {asked.value:g} is impossible: give {low:g} to {high:g}")
    for card in finding_cards().get(modality, {}).values():
        measure = card.measure
        if measure is None or measure.name != asked.name:
            continue
        own = measure.abnormal if card.kind == "abnormal" else measure.normal
        if holds_for(measure, view, age_group) and _within(asked.value, own):
            return card
    return None

"""The phrases of the cards as lexicons: findings, places, modalities, and how each is meant.

Reads the cards and the rule files once; knows no prompt. User cards are understood by the same
grid of techniques and body parts as the bundled ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from medgen.agents.language import Lexicon, fold, rules, tokenize
from medgen.knowledge.cards import (
    FindingCard,
    finding_cards,
    known_modalities,
    modality_cards,
)
from medgen.records import Side

_NEGATIVE_STARTS = ("no ", "without ", "absence of ")
_GAPPED = ("finding",)


@dataclass(frozen=True)
class Place:
    """A location as it may be said: its words, the card's region, and a side if it has one.

    `sided`: whether left and right can be told there; `said`: the name implies its side.
    """

    name: str
    region: str
    side: Side | None = None
    sided: bool = True
    said: bool = False


@dataclass(frozen=True)
class Known:
    """A modality that can be named: a card's or one that nothing bundled draws."""

    name: str
    technique: str | None
    body: str | None
    drawable: bool


@cache
def grid_lexicon() -> Lexicon:
    """Words for techniques and body parts."""
    lexicon = Lexicon()
    data = rules("modalities")
    for category, key in (("technique", "techniques"), ("body", "bodies")):
        for value, phrases in data[key].items():
            for phrase in phrases:
                lexicon.add(phrase, category, value)
    return lexicon


def place_in_grid(text: str) -> tuple[str | None, str | None]:
    """The technique and the body part that a modality's name says."""
    technique = body = None
    for match in grid_lexicon().scan(tokenize(text)):
        if match.category == "technique" and technique is None:
            technique = match.value
        if match.category == "body" and body is None:
            body = match.value
    if body is None and technique is not None:
        body = rules("modalities")["implied_body"].get(technique)
    return technique, body


@cache
def modality_table() -> dict[str, Known]:
    """Every modality that can be named, those with cards first."""
    table = {}
    for name, card in modality_cards().items():
        technique, body = place_in_grid(name)
        for alias in card.aliases:
            other_technique, other_body = place_in_grid(alias)
            technique, body = technique or other_technique, body or other_body
        table[name] = Known(name, technique, body, True)
    for name, entry in known_modalities().items():
        technique, body = place_in_grid(f"{entry.technique} {entry.body_part or ''}")
        table[name] = Known(name, technique, body, False)
    return table


@cache
def modality_lexicon() -> Lexicon:
    """Names and aliases of modalities; the value is the modality's name."""
    lexicon = Lexicon()
    for name, card in modality_cards().items():
        for phrase in (name, card.drawing_phrase, *card.aliases):
            lexicon.add(phrase, "modality", name)
    for name, entry in known_modalities().items():
        for phrase in (name, *entry.aliases):
            lexicon.add(phrase, "modality", name)
    return lexicon


def _abbreviation_needs_capitals(abbreviation: str) -> bool:
    letters = [character for character in abbreviation if character.isalpha()]
    words = rules("language")["words_not_abbreviations"]
    return len(letters) <= 2 or abbreviation.lower() in words


def denied_finding(card: FindingCard) -> str | None:
    """The abnormal finding whose absence a normal card is named for ("no brain tumor")."""
    name = card.name.removeprefix("no ")
    other = finding_cards().get(card.modality, {}).get(name)
    return name if other is not None and card.kind == "normal" and name != card.name else None


def _says_absence_of_a_finding(phrase: str, abnormal: Lexicon) -> bool:
    for start in _NEGATIVE_STARTS:
        if phrase.lower().startswith(start):
            rest = tokenize(phrase[len(start) :])
            found = {index for match in abnormal.scan(rest) for index in match.taken}
            return all(
                index in found or token.key in ("or", "and", "focal")
                for index, token in enumerate(rest)
            )
    return False


@cache
def whole_normal(modality: str) -> str | None:
    """The normal card that plain "normal" means in a modality."""
    words = {phrase.lower() for phrase in rules("language")["normal"]}
    for card in finding_cards().get(modality, {}).values():
        if card.kind == "normal" and words & {phrase.lower() for phrase in card.synonyms}:
            return card.name
    return None


@cache
def _modifier_words() -> frozenset[str]:
    data = rules("language")
    groups = [data[key][value] for key in ("sides", "severities", "counts") for value in data[key]]
    bodies = (rules("locations")[body] for body in ("chest", "brain", "retina"))
    groups += [entry["phrases"] for entries in bodies for entry in entries]
    phrases = [phrase for group in groups for phrase in group]
    in_names = {fold(word) for word in rules("locations")["in_names"]}
    return frozenset(fold(phrase) for phrase in phrases if " " not in phrase) - in_names


def _is_modified(phrase: str, card: FindingCard) -> bool:
    """Whether a phrase is another of the card's with a grade, side or place before it."""
    first, _, rest = phrase.partition(" ")
    others = {other.lower() for other in (card.name, *card.synonyms)}
    region = {fold(word) for word in (card.region or "").split()}
    word = fold(first)
    return rest.lower() in others and word in _modifier_words() and word not in region


def _turned(phrase: str) -> list[str]:
    """The same turned round: "lung collapse", "collapse of the lung"; "ventricles enlarged"."""
    first, _, noun = phrase.partition(" ")
    if noun and first in rules("language")["predicates"]:
        return [f"{noun} {first}"]
    for organ, words in rules("language")["organs"].items():
        for word in words:
            if phrase.startswith(f"{word} "):
                rest = phrase.removeprefix(f"{word} ")
                return [f"{rest} of {organ}", f"{rest} of the {organ}"]
    return []


def _add_findings(lexicon: Lexicon, cards: dict[str, FindingCard]) -> None:
    abnormal = Lexicon()
    for card in cards.values():
        if card.kind == "abnormal":
            for phrase in (card.name, *card.synonyms):
                abnormal.add(phrase, "finding", card.name)
    bare = {phrase.lower() for phrase in rules("language")["normal"]}
    for card in cards.values():
        normal = card.kind == "normal"
        for phrase in (card.name, *card.synonyms):
            # "no pneumonia" is pneumonia, absent: the negation is read by scope, not by a card.
            if normal and (phrase.lower() in bare or _says_absence_of_a_finding(phrase, abnormal)):
                continue
            if not normal and _is_modified(phrase, card):
                continue
            for wording in (phrase, *_turned(phrase)):
                lexicon.add(wording, "finding", card.name)
        for phrase in card.abbreviations:
            if normal and phrase.lower().startswith(_NEGATIVE_STARTS):
                continue
            lexicon.add(phrase, "finding", card.name, upper=_abbreviation_needs_capitals(phrase))


@cache
def places(modality: str) -> tuple[tuple[str, Place], ...]:
    """Every phrase for a place in a modality with a card, and the place that it means."""
    card = modality_cards()[modality]
    sided = {region.name: bool(region.left and region.right) for region in card.regions}
    body = modality_table()[card.name].body or ""
    found: dict[tuple[str, ...], tuple[str, Place]] = {}
    for entry in rules("locations").get(body, []):
        region = entry.get("region", entry["name"])
        place = Place(
            entry["name"],
            region,
            entry.get("side"),
            sided.get(region, True) or "side" in entry or entry.get("sides", False),
            entry.get("said", False),
        )
        own = [] if place.side else [place.name]
        for phrase in (*own, *entry["phrases"]):
            found.setdefault(tuple(token.key for token in tokenize(phrase)), (phrase, place))
    for region in card.regions:
        place = Place(region.name, region.name, None, sided[region.name])
        for phrase in (region.name, *region.synonyms):
            found.setdefault(tuple(token.key for token in tokenize(phrase)), (phrase, place))
    return tuple(found.values())


def _add_modifiers(lexicon: Lexicon, eye: bool) -> None:
    data = rules("language")
    for side, phrases in data["sides"].items():
        for phrase in phrases:
            lexicon.add(phrase, "side", side)
    for side, letters in data["side_letters"].items():
        for letter in letters:
            lexicon.add(letter, "side", side, upper=True)
    if eye:
        for side, phrases in data["eye_sides"].items():
            for phrase in phrases:
                lexicon.add(phrase, "side", side, upper=len(phrase) == 2)
    for severity, phrases in data["severities"].items():
        for phrase in phrases:
            lexicon.add(phrase, "severity", severity)
    for count, phrases in data["counts"].items():
        for phrase in phrases:
            lexicon.add(phrase, "count", int(count))
    for phrase in data["many"]:
        lexicon.add(phrase, "many", phrase)
    for category in ("normal", "otherwise", "clear"):
        for phrase in data[category]:
            lexicon.add(phrase, category, category)
    for reason, phrases in data["not_drawable"].items():
        for phrase in phrases:
            lexicon.add(phrase, "not_drawable", reason)


@cache
def modality_words(modality: str | None) -> Lexicon:
    """What may be said in a prompt of one modality: findings, places, sides, grades, and the rest.

    A modality without cards (or None) has no findings and no places here.
    """
    gaps = [fold(word) for word in rules("language")["gaps"]]
    lexicon = Lexicon(gaps=gaps, gapped=_GAPPED)
    body = modality_table()[modality].body if modality in modality_table() else None
    _add_modifiers(lexicon, eye=body == "retina")
    cards = finding_cards().get(modality or "", {})
    _add_findings(lexicon, cards)
    for name, phrases in _lent(modality or "").items():
        for phrase in phrases:
            lexicon.add(phrase, "finding", name)
    if modality in modality_cards():
        for phrase, place in places(modality):
            lexicon.add(phrase, "place", place)
    return lexicon


def _lent(modality: str) -> dict[str, list[str]]:
    """Synonyms of the same findings in other modalities, where they mean nothing else here."""
    cards = finding_cards().get(modality, {})
    own = {phrase.lower() for card in cards.values() for phrase in (card.name, *card.synonyms)}
    return {
        name: [phrase for phrase in other[name].synonyms if phrase.lower() not in own]
        for other in finding_cards().values()
        for name in other.keys() & cards.keys()
        if other[name].modality != modality and other[name].kind == "abnormal"
    }


@cache
def other_findings(modality: str) -> Lexicon:
    """Findings of the other modalities; the value is (modality, finding)."""
    lexicon = Lexicon()
    for other, cards in finding_cards().items():
        if other == modality:
            continue
        for card in cards.values():
            if card.kind == "normal":
                continue
            for phrase in (card.name, *card.synonyms):
                lexicon.add(phrase, "finding", (other, card.name))
            for phrase in card.abbreviations:
                needs = _abbreviation_needs_capitals(phrase)
                lexicon.add(phrase, "finding", (other, card.name), upper=needs)
    return lexicon


@cache
def generic_findings() -> Lexicon:
    """Words for findings where no card lists any; the value is the word itself."""
    lexicon = Lexicon()
    for cards in finding_cards().values():
        for card in cards.values():
            if card.kind == "abnormal":
                lexicon.add(card.name, "generic", card.name)
    for phrase in rules("modalities")["generic_findings"]:
        lexicon.add(phrase, "generic", phrase)
    return lexicon

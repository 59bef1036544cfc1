"""What one prompt says, before it becomes a plan: findings where they stand, and all said of them.

Uses the phrases of the cards, ConText for status and clauses for what belongs to what. Knows one
modality at a time; knows no plan and no error wording but that of findings shown elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from medgen.agents.language import Match, Token, fold, rules
from medgen.agents.modality import Resolved
from medgen.agents.modifiers import Mention, Modifier, attach, clauses
from medgen.agents.quantities import lengths
from medgen.agents.scope import SENTENCE_ENDS, SEPARATORS, contexts, cue_lexicon
from medgen.agents.vocabulary import (
    denied_finding,
    generic_findings,
    modality_table,
    modality_words,
    other_findings,
    whole_normal,
)
from medgen.knowledge.cards import finding_cards
from medgen.records import Status

_MASK = "\0"
_FARTHEST_OR = 4


def _masked(tokens: Sequence[Token], taken: set[int]) -> list[Token]:
    return [replace(t, key=_MASK) if index in taken else t for index, t in enumerate(tokens)]


@dataclass
class Elsewhere:
    """A finding that other modalities show: (modality, finding) each, and its status here."""

    taken: tuple[int, ...]
    values: list[tuple[str, str]]
    status: Status = "present"


@dataclass
class Reading:
    """Everything found in one prompt.

    `mentions` are the findings in order; `elsewhere` those that only other modalities show;
    `normal_regions` what is said to be normal; `unsaid` runs of tokens that no image can show.
    """

    tokens: list[Token]
    modality: Resolved
    mentions: list[Mention] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    modifiers: list[Modifier] = field(default_factory=list)
    normal_words: list[Match] = field(default_factory=list)
    normal_regions: list[str] = field(default_factory=list)
    unsaid: list[tuple[int, int]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)

    def words(self, start: int, last: int) -> str:
        """The prompt's own words from one token to another, both included."""
        return " ".join(self.tokens[index].text for index in range(start, last + 1))


def _collect(reading: Reading, masked: list[Token]) -> None:
    name = reading.modality.name
    cards = finding_cards().get(name, {})
    for match in modality_words(name).scan(masked):
        reading.used.update(match.taken)
        if match.category == "finding":
            card = cards[match.value]
            normal = card.kind == "normal"
            following = masked[match.end].key if match.end < len(masked) else ""
            last = masked[match.end - 1].key
            if normal and last in ("clear", "free") and following == "of":
                # "lungs are clear of infiltrates" denies infiltrates and no more.
                reading.used.difference_update(match.taken)
                continue
            sided = card.sided and not normal
            mention = Mention(match.taken, card.name, sided, card.region, normal)
            denied = denied_finding(card)
            if denied and masked[match.start].key in ("no", "without", "absence"):
                mention = Mention(match.taken, denied, status="absent", fixed=True)
            said = rules("language")["abbreviated_sides"].get(masked[match.start].key)
            if said and sided and len(match.taken) == 1:
                mention.sides.add(said)
            if all(other.taken != match.taken for other in reading.mentions):
                reading.mentions.append(mention)
        elif match.category == "place":
            if not reading.modality.taken.issuperset(match.taken):
                reading.modifiers.append(Modifier("place", match.value, match.start, match.end))
        elif match.category in ("side", "severity", "count"):
            value = Modifier(match.category, match.value, match.start, match.end)
            reading.modifiers.append(value)
        elif match.category == "not_drawable":
            reading.unsaid.append((match.start, match.end - 1))
        elif match.category in ("normal", "clear", "otherwise"):
            reading.normal_words.append(match)
    if cards:
        rest = _masked(masked, reading.used | reading.modality.taken)
        foreign: dict[tuple[int, ...], list[tuple[str, str]]] = {}
        for match in other_findings(name).scan(rest):
            reading.used.update(match.taken)
            foreign.setdefault(match.taken, []).append(match.value)
        reading.elsewhere = [Elsewhere(taken, values) for taken, values in foreign.items()]
    else:
        for match in generic_findings().scan(_masked(masked, reading.modality.taken)):
            reading.used.update(match.taken)
            reading.mentions.append(Mention(match.taken, match.value))
    reading.mentions.sort(key=lambda mention: mention.taken)


def _count_numbers(reading: Reading) -> None:
    starts = {mention.taken[0] for mention in reading.mentions}
    modifier_at = {i for m in reading.modifiers for i in range(m.start, m.end)}
    for index, token in enumerate(reading.tokens):
        if not token.key.isascii() or not token.key.isdigit() or index in reading.used:
            continue
        following = index + 1
        while following in modifier_at:
            following += 1
        if following in starts and 0 < int(token.key) < 1000:
            reading.modifiers.append(Modifier("count", int(token.key), index, index + 1))
            reading.used.add(index)


def _assign_status(reading: Reading, report: bool) -> None:
    flagged = [False] * len(reading.tokens)
    for modifier in reading.modifiers:
        for index in range(modifier.start, modifier.end):
            flagged[index] = flagged[index] or modifier.kind != "place"
    unsaid = {i for start, last in reading.unsaid for i in range(start, last + 1)}
    spoken: list[Mention | Elsewhere] = [*reading.mentions, *reading.elsewhere]
    masked = _masked(reading.tokens, unsaid)
    found = contexts(masked, [item.taken for item in spoken], flagged, report)
    for item, context in zip(spoken, found, strict=True):
        if isinstance(item, Mention) and item.fixed:
            continue
        item.status = context.status
        if context.status in ("uncertain", "historical") and context.cue is not None:
            past = item.taken if context.status == "historical" else ()
            run = (*context.cue.taken, *past)
            reading.unsaid.append((min(run), max(run)))


def _doubt_alternatives(reading: Reading) -> None:
    """ "glioma or metastasis in the left lobe": one of the two, and it lies there either way."""
    for first, second in pairwise(reading.mentions):
        between = reading.tokens[first.taken[-1] + 1 : second.taken[0]] if second.taken else []
        keys = [token.key for token in between]
        joined = "or" in keys and not SENTENCE_ENDS & set(keys)
        if joined and first.status == second.status == "present" and len(keys) <= _FARTHEST_OR:
            first.status = second.status = "uncertain"
            if not first.places and not first.sides:
                first.places, first.sides = list(second.places), set(second.sides)
                first.spoken = list(second.spoken)


@dataclass
class _Normality:
    """What is said of the rest: all normal, all but the findings, or some place but for them."""

    whole: bool = False
    otherwise: bool = False
    partly: bool = False


def _normal_places(reading: Reading) -> _Normality:
    """Moves places said to be normal to `normal_regions`; says what holds beside them."""
    said = _Normality()
    inside = {index for mention in reading.mentions for index in mention.taken}
    inside |= {index for match in reading.normal_words for index in match.taken}
    parts = clauses(reading.tokens, inside)
    for match in reading.normal_words:
        at = next(k for k, (_, start, end) in enumerate(parts) if start <= match.start < end)
        _, start, end = parts[at]
        if match.category == "otherwise":
            local = any(m.kind == "place" and start <= m.start < end for m in reading.modifiers)
            said.partly, said.otherwise = said.partly or local, said.otherwise or not local
            continue
        spoken = any(start <= mention.taken[0] < end for mention in reading.mentions)
        while at > 0 and parts[at][0] == "and" and not spoken:
            at -= 1
            if any(parts[at][1] <= m.taken[0] < parts[at][2] for m in reading.mentions):
                break
            start = parts[at][1]
        places = [m for m in reading.modifiers if m.kind == "place" and start <= m.start < end]
        if spoken:
            places = [p for p in places if -2 <= p.start - match.end <= 1 or p.end == match.start]
        for place in places:
            reading.modifiers.remove(place)
            reading.normal_regions.append(place.value.region)
        if match.category == "normal" and not places and not spoken:
            # "scoliosis, no acute disease": nothing else is meant.
            rest = _denies(reading, match.taken) and any(_shown(m) for m in reading.mentions)
            said.whole, said.otherwise = said.whole or not rest, said.otherwise or rest
    return said


def _denies(reading: Reading, taken: tuple[int, ...]) -> bool:
    return bool(taken) and reading.tokens[taken[0]].key in ("no", "without")


def _shown(mention: Mention) -> bool:
    return not mention.normal and mention.status in ("present", "uncertain")


def _normal_cards(reading: Reading, said: _Normality) -> list[str]:
    name = reading.modality.name
    cards = finding_cards().get(name, {})
    everything = whole_normal(name)
    if any(_shown(mention) for mention in reading.mentions):
        said.otherwise = said.otherwise or any(
            mention.name == everything and _denies(reading, mention.taken)
            for mention in reading.mentions
        )
    wanted = [
        card.name
        for card in cards.values()
        if card.kind == "normal" and card.region in reading.normal_regions
    ]
    if everything and (said.otherwise or said.partly):
        # What is normal but for the findings: the normal cards that the findings leave possible.
        reading.normal_regions.clear()
        shown = {mention.name for mention in reading.mentions if _shown(mention)}
        ruled_out = {name for other in shown & cards.keys() for name in cards[other].excludes}
        ruled_out |= {everything} if shown else set()
        reading.mentions = [m for m in reading.mentions if m.name not in ruled_out or not m.normal]
        wanted += cards[everything].implies if said.otherwise else []
        wanted = [finding for finding in wanted if finding not in ruled_out]
    elif everything and said.whole:
        wanted.append(everything)
    asked = {mention.name for mention in reading.mentions}
    return [finding for finding in dict.fromkeys(wanted) if finding not in asked]


def _share_eye(reading: Reading) -> None:
    """An image of the retina is of one eye: a side said once holds for all."""
    known = modality_table().get(reading.modality.name)
    if known is None or known.body != "retina":
        return
    sides = {modifier.value for modifier in reading.modifiers if modifier.kind == "side"}
    if len(sides) == 1:
        for mention in reading.mentions:
            mention.sides |= set() if mention.normal else sides


def read_findings(
    tokens: list[Token], modality: Resolved, person: set[int], report: bool = False
) -> Reading:
    """Find every finding of a prompt, or of a report's sentence, and what is said of it.

    Args:
        tokens: The prompt.
        modality: What is imaged, with the tokens that said so.
        person: Tokens that speak of the patient or the projection and are not read again.
        report: Whether this is a report's sentence, whose lists run on through commas.
    """
    reading = Reading(tokens, modality)
    sizes = [size for size in lengths(tokens) if size.start not in person]
    reading.modifiers += sizes
    apart = person | {i for size in sizes for i in range(size.start, size.end)}
    reading.used |= apart
    _collect(reading, _masked(tokens, apart))
    _count_numbers(reading)
    _assign_status(reading, report)
    said = _normal_places(reading)
    attach(tokens, reading.mentions, reading.modifiers)
    if not report:  # a report's "scar or atelectasis" names one shadow that is there
        _doubt_alternatives(reading)
    _share_eye(reading)
    cards = finding_cards().get(modality.name, {})
    for finding in _normal_cards(reading, said):
        reading.mentions.append(Mention((), finding, False, cards[finding].region, True))
    return reading


def leftovers(reading: Reading) -> list[str]:
    """Words of the prompt that nothing used, run by run."""
    filler = {fold(word) for word in rules("language")["filler"]}
    cues = {i for match in cue_lexicon().scan(reading.tokens) for i in match.taken}
    spoken = cues | reading.used | reading.modality.taken
    groups: list[list[str]] = []
    last = -2
    for index, token in enumerate(reading.tokens):
        silent = token.key in SEPARATORS or token.key in filler or not token.is_word
        if silent or index in spoken:
            continue
        if index == last + 1:
            groups[-1].append(token.text)
        else:
            groups.append([token.text])
        last = index
    return [" ".join(group) for group in groups]

"""Which side, place, grade, size and number belong to which finding of a prompt.

Works on clauses: what stands in a finding's own clause is its own; a clause without a finding
gives its words to the neighbour they fit. Knows tokens and mentions; knows no cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from medgen.agents.language import Token, fold, rules
from medgen.agents.scope import ALL_OF, ANY_OF, SENTENCE_ENDS, SEPARATORS
from medgen.agents.vocabulary import Place
from medgen.records import Severity, Side, Status

_GRADES: dict[Severity, int] = {"mild": 0, "moderate": 1, "severe": 2}


@dataclass
class Mention:
    """A finding where it stands, and what was said of it.

    `sided` and `regions` say what it accepts (a heart has no side); `normal` ones take
    nothing, and a `fixed` status was said by the phrase itself.
    """

    taken: tuple[int, ...]
    name: str
    sided: bool = True
    region: str | None = None
    normal: bool = False
    status: Status = "present"
    fixed: bool = False
    sides: set[Side] = field(default_factory=set)
    places: list[tuple[Place, int]] = field(default_factory=list)
    severities: set[Severity] = field(default_factory=set)
    sizes: list[float] = field(default_factory=list)
    count: int | None = None
    spoken: list[tuple[Side, int]] = field(default_factory=list)

    @property
    def severity(self) -> Severity | None:
        """The highest grade said."""
        return max(self.severities, key=_GRADES.__getitem__, default=None)

    @property
    def side(self) -> Side | None:
        """Left, right, or bilateral when both are said."""
        sides = set(self.sides) | {place.side for place, _ in self.places if place.side}
        if not sides:
            return None
        return next(iter(sides)) if len(sides) == 1 else "bilateral"

    @property
    def location(self) -> str | None:
        """The places in words, each with the side that was said for it."""
        names: list[str] = []
        for place, index in self.places:
            of_its_region = place.name in (self.region or "").split()
            if (
                of_its_region
                or place.name == self.region
                or place.name in rules("locations")["nowhere"]
            ):
                continue
            side = place.side
            if side is None and place.sided:
                beside = [said for said, at in self.spoken if 0 < index - at <= 2]
                side = beside[-1] if len(self.places) > 1 and beside else self.side
            name = place.name if place.said or not side else f"{side} {place.name}"
            if name not in names:
                names.append(name)
        return " and ".join(names) or None


@dataclass(frozen=True)
class Modifier:
    """A word about a finding: kind is side, place, severity, size (mm) or count."""

    kind: str
    value: Any
    start: int
    end: int


@dataclass
class _Clause:
    kind: str
    start: int
    end: int
    mentions: list[Mention] = field(default_factory=list)
    modifiers: list[Modifier] = field(default_factory=list)


@cache
def _words(kind: str) -> frozenset[str]:
    return frozenset(fold(word) for word in rules("language")[kind])


def _sign(key: str) -> str:
    if key in ANY_OF | ALL_OF:
        return "and"
    if key in SENTENCE_ENDS:
        return "."
    if key in ("no", "without"):
        return "no"
    return "with" if key in _words("clause_breaks") else ","


def clauses(tokens: Sequence[Token], inside: set[int]) -> list[tuple[str, int, int]]:
    """Clauses as (what stands before, start, end); `inside` tokens never separate.

    What stands before is "", ",", "and", "with", "no" (a denial) or "." (a sentence's end).
    """
    found: list[tuple[str, int, int]] = []
    breaks = _words("clause_breaks")
    kind, begin = "", 0
    for index, token in enumerate(tokens):
        if index in inside or token.key not in SEPARATORS | breaks:
            continue
        if begin < index:
            found.append((kind, begin, index))
            kind = ""
        sign = _sign(token.key)
        kind = sign if kind in ("", ",") or sign in ("with", "no", ".") else kind
        begin = index + 1
    if begin < len(tokens):
        found.append((kind, begin, len(tokens)))
    return found


def _give(mention: Mention, modifier: Modifier) -> None:
    if mention.normal:
        return
    if modifier.kind == "side":
        mention.sides.add(modifier.value)
        mention.spoken.append((modifier.value, modifier.start))
    elif modifier.kind == "place":
        mention.places.append((modifier.value, modifier.start))
    elif modifier.kind == "severity":
        mention.severities.add(modifier.value)
    elif modifier.kind == "size":
        mention.sizes.append(modifier.value)
    else:
        mention.count = modifier.value


def _within(clause: _Clause, tokens: Sequence[Token]) -> None:
    mentions = sorted(clause.mentions, key=lambda mention: mention.taken)
    receiver: Mention | None = None
    reached = -1
    for modifier in sorted(clause.modifiers, key=lambda modifier: modifier.start):
        before = [mention for mention in mentions if mention.taken[0] < modifier.start]
        after = [mention for mention in mentions if mention.taken[-1] >= modifier.end]
        at = modifier.start - 1
        while at > 0 and tokens[at].key in ("the", "a", "an"):
            at -= 1
        lead = tokens[at].key if at >= 0 else ""
        own = tokens[modifier.start].key
        back = not {lead, own}.isdisjoint(_words("prepositions"))
        # What stands together goes together: "in the right upper lobe".
        if receiver is None or modifier.start != reached:
            near = before[-1:] if back or not after else after[:1]
            receiver = next(iter(near or after), None)
        if receiver is not None:
            _give(receiver, modifier)
        reached = modifier.end


def _share_side(before: _Clause, clause: _Clause, tokens: Sequence[Token]) -> None:
    """ "left atelectasis and effusion": a side that stands before a pair is that of both."""
    if not before.mentions or clause.modifiers or tokens[clause.start - 1].key not in ALL_OF:
        return
    first = before.mentions[-1]
    leading = [side for side, at in first.spoken if at < first.taken[0]]
    leading += [place.side for place, at in first.places if place.side and at < first.taken[0]]
    one_side = len({first.side, *leading}) == 1
    for mention in clause.mentions[:1]:
        if leading and one_side and mention.sided and mention.status == first.status:
            mention.sides.add(leading[0])


def _accepts(mention: Mention, modifiers: Sequence[Modifier]) -> bool:
    if mention.normal:
        return False
    for modifier in modifiers:
        if modifier.kind == "side" and not mention.sided:
            return False
        if modifier.kind == "place":
            heart_like = not mention.sided and modifier.value.sided
            if heart_like or (mention.places and not mention.spoken):
                return False
        if modifier.kind == "severity" and mention.severities:
            return False
    return True


def _hand_over(
    clause: _Clause, before: _Clause | None, after: _Clause | None, after_kind: str
) -> None:
    previous = before.mentions[-1] if before else None
    following = after.mentions[0] if after else None
    joined_back = clause.kind in ("and", "with")
    joined_on = after_kind in ("and", "with")
    # "moderate; no infarct": a sentence's end or a denial begins something else.
    if previous and clause.kind != "." and after_kind in ("no", "."):
        following = None
    only_sides = all(modifier.kind in ("side", "severity") for modifier in clause.modifiers)
    receiver = previous or following
    if previous and following:
        if joined_back:
            receiver = previous
        elif joined_on and (only_sides or not _accepts(previous, clause.modifiers)):
            receiver = following
        else:
            receiver = previous if _accepts(previous, clause.modifiers) else following
    if receiver is not None:
        for modifier in clause.modifiers:
            _give(receiver, modifier)


def attach(
    tokens: Sequence[Token], mentions: Sequence[Mention], modifiers: Sequence[Modifier]
) -> None:
    """Give every modifier to the mention it speaks of (mentions are filled in place)."""
    inside = {index for mention in mentions for index in mention.taken}
    inside |= {i for modifier in modifiers for i in range(modifier.start, modifier.end)}
    parts = [_Clause(*clause) for clause in clauses(tokens, inside)]
    for clause in parts:
        span = range(clause.start, clause.end)
        clause.mentions = [m for m in mentions if m.taken and m.taken[0] in span]
        clause.modifiers = [m for m in modifiers if m.start in span]
    for position, clause in enumerate(parts):
        if clause.mentions:
            _within(clause, tokens)
            if position and clause.kind == "and":
                _share_side(parts[position - 1], clause, tokens)
            continue
        if not clause.modifiers:
            continue
        before = next((c for c in reversed(parts[:position]) if c.mentions), None)
        after = next((c for c in parts[position + 1 :] if c.mentions), None)
        after_kind = parts[position + 1].kind if position + 1 < len(parts) else ""
        _hand_over(clause, before, after, after_kind)

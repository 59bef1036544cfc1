"""Status of findings by context: asked for, negated, uncertain or of the past.

A compact ConText (Harkema et al. 2009, doi:10.1016/j.jbi.2009.05.002) over the cue phrases of
`rules/context.yaml`, with the list grammar of requests: a comma ends a scope unless the list goes
on to "or" or "and". Knows tokens and spans; knows no findings by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from medgen.agents.language import Lexicon, Match, Token, rules
from medgen.records import Status

SENTENCE_ENDS = frozenset({".", ";", "!", "|", "\u2022"})
SOFT_MARKS = frozenset({",", ":", "(", ")", "[", "]", "-", "\u2013", "\u2014"})
ANY_OF = frozenset({"or", "nor", "/"})
ALL_OF = frozenset({"and", "&", "+", "plus"})
SEPARATORS = SENTENCE_ENDS | SOFT_MARKS | ANY_OF | ALL_OF
LONGEST_UNKNOWN_ITEM = 3
_STRENGTH: dict[Status, int] = {"present": 0, "uncertain": 1, "historical": 2, "absent": 3}
_ASKS = frozenset({"can", "could", "would", "will", "please", "may"})


@dataclass(frozen=True)
class Context:
    """A finding's status and the cue that gave it (None when nothing did)."""

    status: Status
    cue: Match | None = None


@cache
def cue_lexicon() -> Lexicon:
    """Cue phrases: category is "before", "after", "between" (their value the status they give),
    "pseudo" or "terminate"."""
    lexicon = Lexicon()
    data = rules("context")
    for status in ("absent", "uncertain", "historical"):
        for where in ("before", "after"):
            for phrase in data[status][where]:
                lexicon.add(phrase, where, status)
    for phrase in data["uncertain"]["between"]:
        lexicon.add(phrase, "between", "uncertain")
    for kind in ("pseudo", "terminate"):
        for phrase in data[kind]:
            lexicon.add(phrase, kind, None)
    return lexicon


class _Scopes:
    def __init__(
        self,
        tokens: Sequence[Token],
        targets: Sequence[tuple[int, ...]],
        modified: Sequence[bool],
        report: bool = False,
    ) -> None:
        self.tokens = tokens
        self.report = report
        self.targets = targets
        self.modified = modified
        self.inside = {index for taken in targets for index in taken}
        masked = [
            Token("\0", "\0", token.start, token.end) if index in self.inside else token
            for index, token in enumerate(tokens)
        ]
        matches = cue_lexicon().scan(masked)
        self.cues = [match for match in matches if match.category in ("before", "after", "between")]
        self.stops = {match.start for match in matches if match.category == "terminate"}
        self.covered = {
            index for match in matches if match.category == "pseudo" for index in match.taken
        }

    def _has_target(self, start: int, end: int) -> bool:
        return any(index in self.inside for index in range(start, end))

    def _limit(self, start: int, step: int, ignore: Match) -> int:
        cue_at = {index for cue in self.cues if cue.taken != ignore.taken for index in cue.taken}
        index, seen = start, False
        while 0 <= index < len(self.tokens):
            seen = seen or index in self.inside
            if (
                self.tokens[index].key in SENTENCE_ENDS
                or index in self.stops
                or (index in cue_at and seen)
                or self.tokens[index].key in "()[]:"
            ):
                break
            index += step
        return index

    def _chunks(self, start: int, end: int) -> list[tuple[str, int, int]]:
        chunks: list[tuple[str, int, int]] = []
        kind, begin = "", start
        for index in range(start, end):
            key = self.tokens[index].key
            if key not in SEPARATORS or index in self.inside or index in self.covered:
                continue
            if begin < index or not chunks:
                chunks.append((kind, begin, index))
                kind = ""
            sign = "or" if key in ANY_OF else "and" if key in ALL_OF else ","
            kind = sign if kind in ("", ",") else kind
            begin = index + 1
        if begin < end:
            chunks.append((kind, begin, end))
        return chunks

    def _joint(self, chunks: list[tuple[str, int, int]], position: int) -> str:
        """The word that ends the list which a chunk continues: "or", "and", or "" for no list."""
        kind, start, end = chunks[position]
        known = self._has_target(start, end)
        if not known and end - start > LONGEST_UNKNOWN_ITEM:
            return ""
        if kind == ",":
            kind = self._joint(chunks, position + 1) if position + 1 < len(chunks) else ""
            if not kind and self.report and known and not any(self.modified[start:end]):
                # "no effusion, edema": reports list what is not there, requests list wishes.
                return ","
        # "no pneumonia and *right* effusion": a negated list does not grade or side its items.
        # Only "or" carries a list over a word that is not known.
        if kind == "and" and (not known or any(self.modified[start:end])):
            return ""
        return kind

    def forward(self, cue: Match) -> tuple[int, int]:
        """Token range that a cue standing before its findings reaches."""
        limit = self._limit(cue.end, 1, cue)
        chunks = self._chunks(cue.end, limit)
        reach = chunks[0][2] if chunks else cue.end
        for position in range(1, len(chunks)):
            if not self._joint(chunks, position):
                break
            reach = chunks[position][2]
        return cue.end, reach

    def backward(self, cue: Match) -> tuple[int, int]:
        """Token range that a cue standing behind its findings reaches."""
        begin = self._limit(cue.start - 1, -1, cue) + 1
        chunks = self._chunks(begin, cue.start)
        if not chunks or not self._has_target(*chunks[-1][1:]):
            return cue.start, cue.start
        singular = self.tokens[cue.start].key in ("is", "was", "ha", "isn't", "wasn't", "has")
        reach, listed = chunks[-1][1], False
        for position in range(len(chunks) - 1, 0, -1):
            kind = chunks[position][0]
            if singular or (kind == "," and not listed):
                break
            if not self._has_target(*chunks[position - 1][1:]):
                break
            listed, reach = True, chunks[position - 1][1]
        return reach, cue.start

    def reaches(self, readings: Sequence[Match]) -> list[tuple[Match, tuple[int, int]]]:
        """The cue that one phrase is, and where it reaches; forward before backward."""
        between = [cue for cue in readings if cue.category == "between"]
        if between:
            return [(between[0], self.forward(between[0])), (between[0], self.backward(between[0]))]
        for cue in readings:
            if cue.category == "before" and self._has_target(*self.forward(cue)):
                return [(cue, self.forward(cue))]
        return [(cue, self.backward(cue)) for cue in readings if cue.category == "after"][:1]

    def asks_politely(self, cue: Match) -> bool:
        """Whether a question mark only ends "can you draw ...?"."""
        return (
            self.tokens[cue.start].key == "?"
            and cue.end == len(self.tokens)
            and self.tokens[0].key in _ASKS
        )


def contexts(
    tokens: Sequence[Token],
    targets: Sequence[tuple[int, ...]],
    modified: Sequence[bool],
    report: bool = False,
) -> list[Context]:
    """The status of each target.

    Args:
        tokens: The text.
        targets: Token indices of each finding's mention.
        modified: Per token, whether it is a side, a grade, a number: "no pneumonia and *right*
            effusion" negates the first only.
        report: Lists run on through commas, as reports have them.

    Returns:
        One context a target, in order; the strongest cue wins (absent, historical, uncertain).
    """
    scopes = _Scopes(tokens, targets, modified, report)
    results = [Context("present") for _ in targets]
    by_place: dict[tuple[int, ...], list[Match]] = {}
    for cue in scopes.cues:
        by_place.setdefault(cue.taken, []).append(cue)
    for readings in by_place.values():
        if scopes.asks_politely(readings[0]):
            continue
        for chosen, span in scopes.reaches(readings):
            for position, taken in enumerate(targets):
                within = taken[0] < chosen.start < taken[-1]
                reached = span[0] <= taken[0] and taken[-1] < span[1]
                stronger = _STRENGTH[chosen.value] > _STRENGTH[results[position].status]
                if (within or reached) and stronger:
                    results[position] = Context(chosen.value, chosen)
    return results

"""Words: tokens of a prompt, foldings of spelling, and phrase tables searched longest-first.

Knows English spelling and the lists under `rules/`; knows no medicine, modality or record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import yaml
from rapidfuzz.distance import OSA

_TOKEN = re.compile(
    r"(?P<slash>[a-zA-Z]/[a-zA-Z](?![a-zA-Z]))"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<word>[^\W\d_]+(?:['\u2019][^\W\d_]+)?)"
    r"|(?P<mark>\S)"
)
# The C loader reads the same ten times as fast, where libyaml is there.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DASHES = "-\u2010\u2011"
SHORTEST_TO_CORRECT = 5


@cache
def rules(name: str) -> Any:
    """The content of `medgen/agents/rules/NAME.yaml`; callers must not change it."""
    path = resources.files("medgen.agents") / "rules" / f"{name}.yaml"
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)


@cache
def plain_words() -> frozenset[str]:
    """English words that look like misspelt medical ones and are not ("position", "inflated").

    `rules/plain_words.csv`: the whole words of BERT's uncased English vocabulary (Apache 2.0) that
    lie within two edits of a word of the cards, and anatomical words of our own.
    """
    path = resources.files("medgen.agents") / "rules" / "plain_words.csv"
    return frozenset(fold(word) for word in path.read_text(encoding="utf-8").split()[1:])


@dataclass(frozen=True)
class Token:
    """One word, number or mark: as typed, folded for comparison, and where it stands."""

    text: str
    key: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        """Whether this is a word or an abbreviation, not a number or a mark."""
        return self.key[:1].isalpha()

    @property
    def in_capitals(self) -> bool:
        """Whether it was typed in capitals, a plural's "s" aside."""
        return self.text.isupper() or (len(self.text) > 2 and self.text.rstrip("s").isupper())

    @property
    def is_number(self) -> bool:
        """Whether this is a number."""
        return self.key[:1].isdigit()


@cache
def _spelling() -> tuple[list[tuple[re.Pattern[str], str]], dict[str, str]]:
    data = rules("language")
    patterns = [(re.compile(old), new) for old, new in data["spelling"].items()]
    return patterns, dict(data["irregular"])


@lru_cache(maxsize=16384)
def fold(word: str) -> str:
    """One spelling for a word's variants: lower case, American, singular (tables fold alike)."""
    word = word.lower().replace("\u2019", "'")
    if word.endswith("'s"):
        word = word[:-2]
    patterns, irregular = _spelling()
    if word in irregular:
        return irregular[word]
    for old, new in patterns:
        word = old.sub(new, word)
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and re.search(r"(ss|x|ch|sh)es$", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def tokenize(text: str) -> list[Token]:
    """Split a text into tokens; a hyphen in a compound vanishes, a dash between spaces stays."""
    tokens = []
    for match in _TOKEN.finditer(text):
        piece, start, end = match.group(), match.start(), match.end()
        if piece in _DASHES:
            spaced = text[start - 1 : start].isspace() and text[end : end + 1].isspace()
            if not spaced:
                continue
        if match.lastgroup == "word":
            # The plural of an abbreviation: "HEs", "PEs".
            plural = len(piece) > 2 and piece[-1] == "s" and piece[:-1].isupper()
            key = fold(piece[:-1] if plural else piece)
        else:
            key = piece.lower()
        tokens.append(Token(piece, key, start, end))
    return tokens


@dataclass(frozen=True)
class Match:
    """A phrase found: its category and value, and the indices of the tokens it took."""

    category: str
    value: Any
    taken: tuple[int, ...]

    @property
    def start(self) -> int:
        """Index of the first token."""
        return self.taken[0]

    @property
    def end(self) -> int:
        """Index after the last token."""
        return self.taken[-1] + 1


@dataclass
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    entries: list[tuple[str, Any, bool]] = field(default_factory=list)


class Lexicon:
    """Phrases by category, found longest-first, some of them with words in between.

    `gaps` are folded words that, as numbers do, may stand inside a phrase of a `gapped` category
    ("heart *is mildly* enlarged", "fracture of the *6th* rib"); they stay free for other phrases.
    """

    def __init__(self, gaps: Iterable[str] = (), gapped: Iterable[str] = ()) -> None:
        self._root = _Node()
        self._gaps = frozenset(gaps)
        self._gapped = frozenset(gapped)
        self.words: set[str] = set()

    def add(self, phrase: str, category: str, value: Any, *, upper: bool = False) -> None:
        """Add a phrase; with `upper` it counts only when typed in capitals."""
        node = self._root
        tokens = tokenize(phrase)
        if not tokens:
            return
        for token in tokens:
            node = node.children.setdefault(token.key, _Node())
            if token.is_word and not upper:
                self.words.add(token.key)
        if (category, value, upper) not in node.entries:
            node.entries.append((category, value, upper))

    def _walk(
        self, tokens: Sequence[Token], free: Sequence[bool], start: int
    ) -> list[tuple[tuple[int, ...], _Node]]:
        ends: list[tuple[tuple[int, ...], _Node]] = []
        stack: list[tuple[int, _Node, tuple[int, ...], int]] = [(start, self._root, (), 0)]
        while stack:
            position, node, taken, skipped = stack.pop()
            if node.entries and taken:
                ends.append((taken, node))
            if position >= len(tokens) or not free[position]:
                continue
            child = node.children.get(tokens[position].key)
            if child is not None:
                stack.append((position + 1, child, (*taken, position), skipped))
            gap = tokens[position].key in self._gaps or tokens[position].is_number
            if taken and skipped < 4 and gap:
                stack.append((position + 1, node, taken, skipped + 1))
        return ends

    def scan(self, tokens: Sequence[Token]) -> list[Match]:
        """All phrases, each token used once; the longest at each place wins, no gap before gaps.

        Several values of one phrase (one word for two things) come back as several matches.
        """
        free = [True] * len(tokens)
        found: list[Match] = []
        for start in range(len(tokens)):
            if not free[start]:
                continue
            best: list[Match] = []
            rank = (0, 0)
            for taken, node in self._walk(tokens, free, start):
                span = taken[-1] - taken[0] + 1
                gap = span - len(taken)
                typed_upper = all(tokens[i].in_capitals for i in taken if tokens[i].is_word)
                entries = [
                    entry
                    for entry in node.entries
                    if (typed_upper or not entry[2]) and (not gap or entry[0] in self._gapped)
                ]
                if entries and (len(taken), -gap) > rank:
                    rank = (len(taken), -gap)
                    best = [Match(category, value, taken) for category, value, _ in entries]
            found += best
            for match in best:
                for index in match.taken:
                    free[index] = False
        return sorted(found, key=lambda match: match.taken)


def correct(word: str, vocabulary: Iterable[str]) -> str | None:
    """The one word of the vocabulary that a misspelt folded word can only mean, or None.

    One edit (swap, slip, miss or double) up to seven letters, two from eight on; a tie between
    two words ("hypotension", "hypertension") is no answer.
    """
    if len(word) < SHORTEST_TO_CORRECT:
        return None
    allowed = 1 if len(word) < 8 else 2
    best: list[str] = []
    distance = allowed + 1
    for candidate in vocabulary:
        if abs(len(candidate) - len(word)) > allowed or len(candidate) < SHORTEST_TO_CORRECT:
            continue
        if candidate[0] != word[0] and candidate[1:2] != word[1:2] and candidate[1] != word[0]:
            continue
        edits = OSA.distance(word, candidate, score_cutoff=allowed)
        if edits < distance:
            best, distance = [candidate], edits
        elif edits == distance and edits <= allowed:
            best.append(candidate)
    return best[0] if len(set(best)) == 1 and 0 < distance <= allowed else None

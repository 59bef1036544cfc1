"""A report's sections and sentences, and whether a text is a report at all.

Knows headings and full stops (`rules/report_reading.yaml`); knows no findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from medgen.agents.language import rules

_BULLET = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*\u2022\u2013])\s+")
# Before white space or a capital, but not in "2.5"; "vs." is looked at apart.
_END = re.compile(r"[.](?=\s|$|[A-Z(])|[;!\n|\u2022]+|\?(?=\s|$)")
_WRAPPED = re.compile(r"[ \t]*\n[ \t]*(?=[a-z])")
_INLINE_NUMBER = re.compile(r"(?:(?<=[.;:?!])|^)\s*\(?\d{1,2}[.)]\s*(?=[A-Z])")


@dataclass(frozen=True)
class Sentence:
    """One sentence of a report, and the section that it stands in."""

    section: str
    text: str


@cache
def _headings() -> tuple[re.Pattern[str], dict[str, str]]:
    section_of = {
        name: section for section, names in rules("report_reading")["sections"].items()
        for name in names
    }  # fmt: skip
    names = "|".join(
        re.escape(name).replace(r"\ ", r"[\s-]+") for name in sorted(section_of, key=len)[::-1]
    )
    pattern = re.compile(rf"(?:^|(?<=[.;!?\n]))\s*(?P<name>{names})\s*:\s*", re.IGNORECASE)
    return pattern, section_of


def _abbreviated(text: str, stop: int) -> bool:
    word = re.search(r"([A-Za-z.]+)$", text[:stop])
    if word is None:
        return False
    last = word.group(1).lower()
    return last in rules("report_reading")["abbreviations"]


def _sentences(text: str) -> Iterator[str]:
    text = _INLINE_NUMBER.sub(" ", text)
    begin = 0
    for match in _END.finditer(text):
        if match.group().startswith(".") and _abbreviated(text, match.start()):
            continue
        # A question mark is a word of doubt: it stays with its sentence.
        end = match.end() if match.group() == "?" else match.start()
        yield text[begin:end]
        begin = match.end()
    yield text[begin:]


def sentences(text: str) -> list[Sentence]:
    """Split a report into sentences, each with its section.

    Args:
        text: Lines, with or without headings such as "Impression:"; a numbered list counts as
            sentences.

    Returns:
        Sentences that hold a letter, in order; "findings" before any heading.
    """
    pattern, section_of = _headings()
    text = _WRAPPED.sub(" ", text)
    found: list[Sentence] = []
    section, begin = "findings", 0
    parts: list[tuple[str, str]] = []
    for match in pattern.finditer(text):
        parts.append((section, text[begin : match.start()]))
        name = re.sub(r"[\s-]+", " ", match.group("name").lower())
        section, begin = section_of[name], match.end()
    parts.append((section, text[begin:]))
    for section, part in parts:
        for piece in _sentences(part):
            piece = _BULLET.sub("", piece).strip()
            if any(letter.isalpha() for letter in piece):
                found.append(Sentence(section, piece))
    return found


def is_report(text: str) -> bool:
    """Whether a text looks like a report: it has a section's heading, or many sentences."""
    pattern, _ = _headings()
    opening = rules("report_reading")["opening"]
    if any(match.group("name").lower() in opening for match in pattern.finditer(text)):
        return True
    least: int = rules("report_reading")["sentences"]
    return len(sentences(text)) >= least

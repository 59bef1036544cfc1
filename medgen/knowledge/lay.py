"""Lay words in a question, and what the field says for them (`base/lay_words.yaml`).

Knows phrases; nothing of findings or retrieval.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

import yaml


@lru_cache
def lay_words() -> dict[str, str]:
    """The field's words by lay phrase."""
    path = resources.files("medgen.knowledge") / "base" / "lay_words.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@lru_cache
def _pattern() -> re.Pattern[str]:
    # Longest first: "swollen glands" is not "swollen".
    phrases = sorted(lay_words(), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b")


def in_field_words(text: str) -> str:
    """The text, followed in brackets by the field's words for the lay phrases it holds."""
    found = dict.fromkeys(lay_words()[match] for match in _pattern().findall(text.lower()))
    return f"{text} ({', '.join(found)})" if found else text

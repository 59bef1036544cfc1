"""The words of a question that are worth looking for in a word index."""

from __future__ import annotations

import re

WORD = r"[^\W_]{2,}"
STOP_WORDS = {
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in", "into",
    "is", "it", "its", "like", "of", "on", "or", "that", "the", "their", "this", "to", "was",
    "were", "which", "with",
}  # fmt: skip


def search_words(text: str) -> set[str]:
    """The words of a question that are worth looking for."""
    return set(re.findall(WORD, text.lower())) - STOP_WORDS

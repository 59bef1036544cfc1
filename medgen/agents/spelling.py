"""Misspelt words of a request, read as the one word of the vocabulary that they can only mean.

Plain English is no misspelling. Knows the words of the cards and rules; knows no grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache

from medgen.agents.language import Token, correct, fold, plain_words, rules, tokenize
from medgen.agents.scope import cue_lexicon
from medgen.agents.vocabulary import (
    generic_findings,
    grid_lexicon,
    modality_lexicon,
    modality_words,
)
from medgen.knowledge.cards import modality_cards


@cache
def _vocabulary() -> tuple[tuple[str, ...], frozenset[str]]:
    """Words that a misspelling may mean, and all words that are none."""
    content = set(modality_lexicon().words) | set(grid_lexicon().words)
    for name in modality_cards():
        content |= modality_words(name).words
    known = content | cue_lexicon().words | generic_findings().words
    language = rules("language")
    known |= {fold(word) for word in language["filler"]}
    known |= {fold(word) for word in (*language["age_units"], *language["no_misspellings"])}
    for groups in ("age_groups", "sexes", "views"):
        for phrases in language[groups].values():
            known |= {token.key for phrase in phrases for token in tokenize(phrase)}
    known |= plain_words()
    return tuple(sorted(content)), frozenset(known)


@lru_cache(maxsize=65536)
def _corrected_word(word: str) -> str | None:
    content, known = _vocabulary()
    return None if word in known else correct(word, content)


def respell(tokens: Sequence[Token]) -> tuple[list[Token], list[str]]:
    """The tokens with misspelt words corrected, and a line on each that was."""
    result, warnings = [], []
    for token in tokens:
        better = _corrected_word(token.key) if token.is_word else None
        if better is None and token.is_word and token.key not in _vocabulary()[1]:
            # "fibrosys" folds to a word of which the plural's end was cut.
            better = _corrected_word(token.text.lower())
        if better:
            warnings.append(f'read "{token.text}" as "{better}"')
            token = replace(token, key=better)
        result.append(token)
    return result, warnings

"""Words of a request that no image can show, sorted by what they are.

Knows the lists of the language rules; knows no report.
"""

from __future__ import annotations

from functools import cache

from medgen.agents.language import rules, tokenize
from medgen.agents.vocabulary import modality_words
from medgen.knowledge.cards import modality_cards
from medgen.records import Plan

KINDS = ("symptom", "history", "purpose", "uncertainty", "comparison", "other")


@cache
def _cues(status: str) -> frozenset[str]:
    return frozenset((*rules("context")[status]["before"], *rules("context")[status]["after"]))


def undrawable_by_kind(plan: Plan) -> dict[str, list[str]]:
    """`plan.not_drawable` by kind, in the order said; every kind of `KINDS` is a key.

    A comparison needs an earlier image; uncertainty is carried by the findings' status; "other" is
    what a language model called undrawable and no list knows.
    """
    words = modality_words(plan.modality if plan.modality in modality_cards() else None)
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for said in plan.not_drawable:
        lower = said.lower()
        reasons = {m.value for m in words.scan(tokenize(said)) if m.category == "not_drawable"}
        if lower in _cues("uncertain"):
            kind = "uncertainty"
        elif any(lower.startswith(f"{cue} ") for cue in _cues("historical")):
            kind = "history"
        else:
            kind = next((name for name in KINDS if name in reasons), "other")
        found[kind].append(said)
    return found

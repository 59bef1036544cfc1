"""Fuses what vectors, words and the graph say about a question into one ranking of facts.

Plain arithmetic over scores; the weights are those of `relevance.yaml`. Knows no storage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Weights = Mapping[str, Any]


@dataclass
class Evidence:
    """What each way of looking brought up for one question.

    `facts` and `cards` are cosine similarities by fact id and by "modality: finding"; `words` the
    full-text ranks, 1 for the best match, by either; `graph` scores of what was reached over an
    edge.
    """

    facts: dict[str, float] = field(default_factory=dict)
    cards: dict[str, float] = field(default_factory=dict)
    words: dict[str, float] = field(default_factory=dict)
    graph: dict[str, float] = field(default_factory=dict)


def denies(text: str, weights: Weights) -> bool:
    """Whether a question denies something ("no lump anywhere")."""
    return not set(re.findall(r"[a-z]+", text.lower())).isdisjoint(weights["denial_words"])


def card_scores(
    evidence: Evidence, cards: Mapping[str, Mapping[str, Any]], denied: bool, weights: Weights
) -> dict[str, float]:
    """How well each card answers, by "modality: finding"."""
    scores = {}
    for key, card in cards.items():
        found = (
            evidence.cards.get(key, 0.0),
            evidence.facts.get(card["finding"], 0.0),
            evidence.graph.get(card["finding"], 0.0),
        )
        score = max(found)
        matched = max(
            evidence.words.get(f"card|{key}", 0.0), evidence.words.get(card["finding"], 0.0)
        )
        if score <= 0 and matched <= 0:
            continue
        score += weights["words_weight"] * matched
        if denied:
            score += weights["denied"] if card["normal"] else -weights["denied"]
        scores[key] = score
    return scores


def rank(
    evidence: Evidence,
    cards: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
    denied: bool,
    weights: Weights,
) -> dict[str, float]:
    """Fact id to fused score, 0-1, of all facts above the floor.

    A card's best sign scores like the card, so that what is found first says how it looks; further
    facts of the same finding are lowered, so that the best few differ. Terms of the wide tables
    stand behind curated ones of equal similarity.

    Args:
        evidence: What was found.
        cards: The cards of the modality asked for (all, when none was).
        facts: The facts that may be told, by id.
        denied: Whether the question denies.
        weights: `relevance.yaml`.
    """
    floor, share = weights["floor"], weights["card_weight"]
    scores: dict[str, float] = {}
    owners: dict[str, str] = {}
    for key, card_score in card_scores(evidence, cards, denied, weights).items():
        card = cards[key]
        signs = {
            sign: evidence.facts.get(sign, 0.0)
            + weights["words_weight"] * evidence.words.get(sign, 0.0)
            for sign in card["signs"]
        }
        if max([card_score, *signs.values()]) < floor:
            continue
        best = max(signs, key=lambda sign: signs[sign])
        for sign, own in signs.items():
            score = share * card_score + (1 - share) * own
            if sign == best:
                score = max(score, card_score, own)
            if score > scores.get(sign, 0.0):
                scores[sign], owners[sign] = score, key
        if card_score > scores.get(card["finding"], 0.0):
            scores[card["finding"]] = card_score
            owners[card["finding"]] = key
    for fact, similarity in evidence.facts.items():
        if fact in owners or fact not in facts or similarity < floor:
            continue
        behind = weights["wide"] if facts[fact].get("wide") else weights["plain"]
        matched = weights["words_weight"] * evidence.words.get(fact, 0.0)
        scores[fact] = max(similarity + matched - behind, 0.0)
    told = {
        fact: min(score, 1.0) for fact, score in scores.items() if score >= floor and fact in facts
    }
    return _spread(told, owners, weights["same_finding"], floor)


def _spread(
    scores: dict[str, float], owners: dict[str, str], step: float, floor: float
) -> dict[str, float]:
    """Lower the second, third ... fact of one finding, never below the floor."""
    seen: dict[str, int] = {}
    spread = {}
    for fact in sorted(scores, key=lambda one: (-scores[one], ":sign:" not in one, one)):
        owner = owners.get(fact)
        before = seen.get(owner, 0) if owner else 0
        spread[fact] = max(scores[fact] - step * before, floor)
        if owner:
            seen[owner] = before + 1
    return spread

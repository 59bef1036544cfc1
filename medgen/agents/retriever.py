"""The retriever: gathers what is known about a plan, with ids, from the store and the case index.

Looks up what the plan names (findings, signs, regions, their relations) and searches for what its
words mean. Decides nothing: it reads the plan and returns facts.
"""

from __future__ import annotations

from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.knowledge.cases import CaseIndex
from medgen.knowledge.facts import finding_id, modality_id, region_id, sign_id
from medgen.knowledge.store import KnowledgeStore
from medgen.records import Fact, Finding, Plan
from medgen.settings import settings

KIND_ORDER = ("term", "relation", "sign", "case")
SEARCHED_FACTS = 8
CASES_A_FINDING = 2
CASES_A_PLAN = 3
MAX_SEARCH_CHARACTERS = 400
BETWEEN_FINDINGS = ("MEDGEN:excludes:", "MEDGEN:differential-of:", "MEDGEN:implies:")


def retrieve(
    plan: Plan, store: KnowledgeStore, cases: CaseIndex, retrieval: str | None = None
) -> list[Fact]:
    """Everything that the knowledge base has to say about a plan.

    Args:
        plan: Its modality, findings and regions are looked up, its prompt is searched for.
        store: The knowledge store.
        cases: The index of training captions.
        retrieval: "all", "facts" (no cases) or "off"; `MEDGEN_RETRIEVAL` when None.

    Returns:
        Facts without repeats: terms, relations, signs, cases in this order, within a kind by
        score, then id. What was looked up by name has score 1; what was searched for has its
        fused score and lies above the relevance floor of `relevance.yaml`. Once findings are
        known, signs and cases of other findings are left out: they would suggest what nobody asked
        for. So are signs of absent findings.
    """
    retrieval = retrieval or settings().retrieval
    if retrieval == "off":
        return []
    facts: list[Fact | None] = [store.fact(modality_id(plan.modality), plan.modality)]
    for region in plan.regions:
        facts.append(store.fact(_region_fact(plan, region.name, region.code), plan.modality))
    asked = {finding.finding for finding in plan.findings}
    for finding in plan.findings:
        card = finding_cards().get(plan.modality, {}).get(finding.finding)
        if card is not None:
            facts += _known(plan, card, finding, asked, store)
        if retrieval == "all":
            facts += _precedents(plan, finding, cases)
    facts += _searched(plan, store)
    if retrieval == "all" and not plan.findings:
        facts += cases.search(plan.prompt[:MAX_SEARCH_CHARACTERS], plan.modality, CASES_A_PLAN)
    return _ordered([fact for fact in facts if fact is not None])


def _region_fact(plan: Plan, name: str, code: str | None) -> str:
    if code:
        return code
    card = modality_cards().get(plan.modality)
    regions = {region.name: region for region in card.regions} if card else {}
    return region_id(regions[name]) if name in regions else ""


def _known(
    plan: Plan, card: FindingCard, finding: Finding, asked: set[str], store: KnowledgeStore
) -> list[Fact | None]:
    facts = [store.fact(finding_id(card), plan.modality)]
    if finding.status != "absent":
        facts += [store.fact(sign_id(plan.modality, sign), plan.modality) for sign in card.signs]
    others = (asked | set(card.implies)) - {card.name}
    for relation in store.relations(card.name, plan.modality):
        # A finding excludes, resembles and follows from many others; only those that were asked
        # for matter, and what implies it is not implied by it.
        about_others = relation.id.startswith(BETWEEN_FINDINGS)
        if not about_others or any(other in relation.text for other in others):
            facts.append(relation)
    return facts


def _precedents(plan: Plan, finding: Finding, cases: CaseIndex) -> list[Fact]:
    if finding.status == "absent":
        return []
    words = " ".join(filter(None, (finding.severity, finding.finding, plan.view, plan.sex)))
    cards = finding_cards().get(plan.modality, {}).values()
    kinds = {card.name for card in cards if finding.finding in card.implies}
    return cases.search(words, plan.modality, CASES_A_FINDING, {finding.finding, *kinds})


def _searched(plan: Plan, store: KnowledgeStore) -> list[Fact]:
    """What the prompt's words bring up; of signs only those of findings that shall be seen."""
    names = [finding.finding for finding in plan.findings if finding.status != "absent"]
    text = plan.prompt[:MAX_SEARCH_CHARACTERS]
    found = store.query(text, plan.modality, names, SEARCHED_FACTS)
    if not plan.findings:
        return found
    cards = finding_cards().get(plan.modality, {})
    shown = {
        sign_id(plan.modality, sign)
        for name in names
        if name in cards
        for sign in cards[name].signs
    }
    return [
        fact
        for fact in found
        if (fact.kind != "sign" or fact.id in shown) and not fact.id.startswith(BETWEEN_FINDINGS)
    ]


def _ordered(facts: list[Fact]) -> list[Fact]:
    best: dict[str, Fact] = {}
    for fact in facts:
        if fact.id not in best or fact.score > best[fact.id].score:
            best[fact.id] = fact
    return sorted(
        best.values(), key=lambda fact: (KIND_ORDER.index(fact.kind), -fact.score, fact.id)
    )

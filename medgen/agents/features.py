"""Maps findings to what they look like and to the numbers that a drawing must show.

Signs come from the finding cards and from retrieved sign facts, each with the fact's id; targets
are ranges with their source. Whatever was used of the retrieved facts is cited.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from medgen.agents.chat_model import LONGEST_LIST
from medgen.agents.consistency import implied
from medgen.agents.language import rules, tokenize
from medgen.agents.llm import RULES, Session
from medgen.agents.pathology import SHOWN, lung_density, measure_of
from medgen.agents.quantities import holds_for
from medgen.agents.vocabulary import modality_words
from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.knowledge.facts import finding_id, sign_id, slug
from medgen.records import Fact, Finding, MeasurementTarget, Plan, Record, Sign

LONGEST_SIGN = 200
_USED_RELATIONS = "is measured by|excludes|implies|is located in"


def _names_others(text: str, card: FindingCard) -> bool:
    """Whether a sign's words name a finding that neither is this one nor follows from it."""
    own = {card.name, *implied(card.name, card.modality)}
    matches = modality_words(card.modality).scan(tokenize(text))
    return any(match.category == "finding" and match.value not in own for match in matches)


def _signs(card: FindingCard, facts: Sequence[Fact]) -> list[Sign]:
    """The card's own signs, then retrieved ones.

    A retrieved sign may come from anybody's text, so it is used only if it is short and brings no
    finding with it that nobody asked for.
    """
    ids = {fact.id for fact in facts}
    signs = []
    for text in card.signs:
        own = sign_id(card.modality, text)
        signs.append(Sign(finding=card.name, text=text, fact=own if own in ids else None))
    phrase = modality_cards()[card.modality].drawing_phrase
    start = f"{card.name} on {phrase}: "
    known = {sign.fact for sign in signs}
    for fact in facts:
        if fact.kind == "sign" and fact.id not in known and fact.text.startswith(start):
            text = " ".join(fact.text.removeprefix(start).split())
            if len(text) <= LONGEST_SIGN and not _names_others(text, card):
                signs.append(Sign(finding=card.name, text=text, fact=fact.id))
    return signs


def _range_target(finding: Finding, plan: Plan) -> MeasurementTarget | None:
    measure = measure_of(finding.finding, plan.modality)
    if measure is None or not holds_for(measure, plan.view, plan.age_group):
        return None
    card = finding_cards()[plan.modality][finding.finding]
    abnormal = card.kind == "abnormal" and finding.status in SHOWN
    return MeasurementTarget(
        name=slug(measure.name).replace("-", "_"),
        finding=finding.finding,
        unit=measure.unit,
        expected=measure.abnormal if abnormal else measure.normal,
        source=measure.source,
    )


def _side_target(finding: Finding, plan: Plan) -> list[MeasurementTarget]:
    density = lung_density(finding, plan)
    if density is None or finding.side is None or finding.status not in SHOWN:
        return []
    sides = ("right", "left") if finding.side == "bilateral" else (finding.side,)
    return [
        MeasurementTarget(
            name=f"opacity_{side}",
            finding=finding.finding,
            expected=(density["at_least"], None),
            source=rules("drawing")["opacity_source"],
        )
        for side in sides
    ]


def _uses(fact: Fact, plan: Plan, ids: set[str], names: set[str]) -> bool:
    if fact.id in ids:
        return True
    if fact.kind != "relation":
        return False
    about = "|".join(re.escape(name) for name in sorted(names))
    said = rf"(?:^|[.;] *)(?:{about}) (?:{_USED_RELATIONS})"
    return bool(names) and re.search(said, fact.text.lower()) is not None


class ChosenSigns(Record):
    """The signs of one finding, by their numbers."""

    finding: str
    signs: list[int] = Field(max_length=LONGEST_LIST)


class FeatureMap(Record):
    """How the findings are to look."""

    signs: list[ChosenSigns] = Field(max_length=LONGEST_LIST)


def _by_rules(plan: Plan, facts: Sequence[Fact]) -> tuple[list[Sign], list[MeasurementTarget]]:
    cards = finding_cards().get(plan.modality, {})
    signs: list[Sign] = []
    targets = list(plan.measurements)
    for finding in plan.findings:
        if finding.status == "historical" or finding.finding not in cards:
            continue
        if finding.status in SHOWN:
            signs += _signs(cards[finding.finding], facts)
        target = _range_target(finding, plan)
        if target is not None and target.name not in {one.name for one in targets}:
            targets.append(target)
        known = {target.name for target in targets}
        targets += [one for one in _side_target(finding, plan) if one.name not in known]
    denied = [f.finding for f in plan.findings if f.status == "absent"]
    signs = [sign for sign in signs if not any(name in sign.text for name in denied)]
    return signs, targets


def _question(plan: Plan, signs: Sequence[Sign], facts: Sequence[Fact]) -> dict[str, object]:
    sources = {fact.id: fact.source for fact in facts}
    shown = [finding for finding in plan.findings if finding.status in SHOWN]
    return {
        "modality": plan.modality,
        "findings": [
            finding.model_dump(include={"finding", "side", "location", "severity"})
            for finding in shown
        ],
        "signs": [
            {
                "number": number,
                "finding": sign.finding,
                "sign": sign.text,
                "source": sources.get(sign.fact or "", "the finding's card"),
            }
            for number, sign in enumerate(signs, 1)
        ],
    }


def _chosen(signs: Sequence[Sign], answer: FeatureMap) -> list[Sign]:
    """The signs that were chosen, best first; a finding of which none was keeps all of its own.

    A model can leave signs out and order them; it has no means to add one or to word one.
    """
    picked: dict[str, list[Sign]] = {}
    for choice in answer.signs:
        for number in choice.signs:
            sign = signs[number - 1] if 1 <= number <= len(signs) else None
            own = picked.setdefault(choice.finding, [])
            if sign is not None and sign.finding == choice.finding and sign not in own:
                own.append(sign)
    names = dict.fromkeys(sign.finding for sign in signs)
    every = {name: [sign for sign in signs if sign.finding == name] for name in names}
    return [sign for name in names for sign in picked.get(name) or every[name]]


def map_features(plan: Plan, facts: Sequence[Fact], session: Session | None = None) -> Plan:
    """Signs, measurement targets and citations of a plan.

    Args:
        plan: Assessed and localized.
        facts: What was retrieved for it; empty when retrieval is off.
        session: Whom to ask which of the known signs fit.

    Returns:
        The plan with signs of every shown finding, targets (those the user gave first), and in
        `cited` the ids of the facts that were used: terms of the findings and regions, signs, and
        relations that say how a finding is measured or what it excludes.
    """
    signs, targets = _by_rules(plan, facts)
    decided_by = RULES
    if session is not None and session.asks and signs:
        outcome = session.ask("features", _question(plan, signs, facts), FeatureMap)
        decided_by = outcome.decided_by
        if outcome.answer is not None:
            signs = _chosen(signs, outcome.answer)
    cards = finding_cards().get(plan.modality, {})
    told = [f for f in plan.findings if f.status != "historical" and f.finding in cards]
    ids = {region.code for region in plan.regions if region.code}
    ids |= {finding_id(cards[finding.finding]) for finding in told}
    ids |= {sign.fact for sign in signs if sign.fact}
    names = {finding.finding.lower() for finding in told}
    cited = [fact.id for fact in facts if _uses(fact, plan, ids, names)]
    return plan.model_copy(
        update={
            "signs": signs,
            "measurements": targets,
            "cited": list(dict.fromkeys([*plan.cited, *cited])),
            "decided_by": plan.decided_by | {"features": decided_by},
        }
    )

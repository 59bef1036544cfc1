"""Assesses the findings: codes, what they entail and exclude, whether the patient and view fit.

Fills in what the request takes for granted (the prompt "cardiomegaly" means an adult PA film) and
says so in the notes. Adds no finding: what a finding entails is noted, not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from medgen.agents.chat_model import LONGEST_LIST
from medgen.agents.consistency import implied
from medgen.agents.language import rules, tokenize
from medgen.agents.llm import RULES, Session
from medgen.agents.vocabulary import grid_lexicon, modality_table
from medgen.knowledge.cards import FindingCard, MeasureCard, finding_cards
from medgen.records import Entailed, Finding, Plan, Record

SHOWN = ("present", "uncertain")
SHORTEST_DOUBT, LONGEST_DOUBT = 3, 240  # words, characters


def measure_of(finding: str, modality: str) -> MeasureCard | None:
    """How a finding is measured: its own card's measure, or that of a normal card it entails."""
    cards = finding_cards().get(modality, {})
    for name in (finding, *implied(finding, modality)):
        card = cards.get(name)
        direct = card is not None and (name == finding or card.kind == "normal")
        if card is not None and direct and card.measure is not None:
            return card.measure
    return None


def lung_density(finding: Finding, plan: Plan) -> dict[str, float] | None:
    """Densities to aim at for a finding that makes a lung dense, None if it does not.

    Returns:
        `affected` and `other`, the lungs it is asked on and not, and `at_least`, what the affected
        one should exceed (0-1, as in `medgen.generator.structured`); adult numbers where no age
        group is known. A finding counts that `rules/drawing.yaml` lists or that entails one.
    """
    listed = rules("drawing")["opacity"].get(plan.modality, [])
    if not {finding.finding, *implied(finding.finding, plan.modality)} & set(listed):
        return None
    table: dict[str, float] = rules("drawing")["lung_density"][plan.age_group or "adult"]
    affected = table[finding.severity or "unsaid"]
    return {"affected": affected, "other": table["other"], "at_least": table["at_least"]}


def _defaults(plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """The patient and projection that a measured finding takes for granted."""
    changes: dict[str, Any] = {}
    notes: list[str] = []
    for finding in plan.findings:
        measure = measure_of(finding.finding, plan.modality)
        if measure is None or finding.status == "historical":
            continue
        if plan.age_group is None and measure.population != "any":
            changes["age_group"] = measure.population
            notes.append(f"{finding.finding}: no age was given, an {measure.population} is meant")
        group = changes.get("age_group", plan.age_group)
        if plan.view is None and measure.views and group in (measure.population, None):
            changes["view"] = measure.views[0]
            notes.append(f"{finding.finding}: no view was given, {measure.views[0]} is meant")
        break
    return changes, notes


def _measurable(plan: Plan) -> Iterator[str]:
    told: set[str] = set()
    for finding in plan.findings:
        measure = measure_of(finding.finding, plan.modality)
        if measure is None or measure.name in told or finding.status == "historical":
            continue
        told.add(measure.name)
        where = f"{measure.population}s" if measure.population != "any" else "patients"
        views = f" on {' or '.join(measure.views)} films" if measure.views else ""
        held = f"the {measure.name} is judged for {where}{views} ({measure.source})"
        if plan.view and measure.views and plan.view not in measure.views:
            yield f"{held}: on an {plan.view} film it is drawn for but its check abstains"
        elif plan.age_group and measure.population not in ("any", plan.age_group):
            yield f"{held}: for a {plan.age_group} it is drawn for but its check abstains"


def _hidden(plan: Plan, card: FindingCard) -> Iterator[str]:
    if plan.view and plan.view in card.hidden_in:
        yield f"{card.name} may not be visible on an {plan.view} film"


def _implausible(plan: Plan, card: FindingCard) -> Iterator[str]:
    """What does not fit the patient: drawn as asked, and said."""
    ages = rules("pathology")["usual_age"].get(card.name)
    if ages is not None:
        low, high = ages["years"]
        adult = rules("language")["adult_from"]
        age = plan.age
        if age is None and plan.age_group == "child":
            age = 0 if low >= adult else None
        if age is not None and not low <= age <= high:
            who = f"at {plan.age}" if plan.age is not None else f"in a {plan.age_group}"
            yield f"{card.name} {who} is unusual ({ages['why']}): drawn as asked"


def _elsewhere(plan: Plan) -> Iterator[str]:
    """Parts of the body and states that the image or the patient cannot have."""
    tokens = tokenize(plan.prompt)
    known = modality_table().get(plan.modality)
    absent = rules("pathology")["not_shown"].get(known.body if known else None, [])
    matches = [match for match in grid_lexicon().scan(tokens) if match.category == "body"]
    parts = list(dict.fromkeys(match.value for match in matches))
    for part in parts:
        if part in absent:
            yield f"{plan.modality} does not show the {part}: what is said of it is not drawn"
    sexes = rules("pathology")["one_sex"] | rules("pathology")["one_sex_words"]
    for said in (*parts, *(token.key for token in tokens)):
        if plan.sex and sexes.get(said, plan.sex) != plan.sex:
            yield f"{said} does not go with a {plan.sex} patient"


def _left_to_chance(plan: Plan, shown: Sequence[tuple[Finding, FindingCard]]) -> Iterator[str]:
    """What the bundled generator's captions and numbers have no means to say."""
    words = []
    for finding, card in shown:
        dense = lung_density(finding, plan) is not None
        measured = measure_of(card.name, plan.modality) is not None
        place = finding.location if dense else finding.location or finding.side
        grade = None if dense or measured else finding.severity
        said = [word for word in (grade, place) if word and card.kind == "abnormal"]
        words += [f"{', '.join(said)} ({card.name})"] if said else []
    if words:
        yield f"the bundled generator has no words for {'; '.join(words)}: left to chance"
    unlearned = [card.name for _, card in shown if not card.captioned]
    if unlearned:
        names = ", ".join(unlearned)
        yield f"the bundled generator has not learned {names}: do not rely on the drawing"


def _entailed(card: FindingCard, denied: set[str]) -> Iterator[Entailed]:
    may_lack = rules("pathology")["may_lack"].get(card.name, [])
    for name in implied(card.name, card.modality):
        if name not in denied:
            relation: Literal["implies", "may imply"] = "implies"
            if name in may_lack:
                relation = "may imply"
            yield Entailed(finding=card.name, relation=relation, other=name)
    for name in card.excludes:
        yield Entailed(finding=card.name, relation="excludes", other=name)


def _noted(card: FindingCard, entailed: Sequence[Entailed]) -> Iterator[str]:
    """What a finding entails, in a sentence; of what it excludes only what is normal."""
    cards = finding_cards().get(card.modality, {})
    others: dict[str, list[str]] = {}
    for one in entailed:
        others.setdefault(one.relation, []).append(one.other)
    if "implies" in others:
        yield f"{card.name} entails {', '.join(others['implies'])}"
    if "may imply" in others:
        usual = ", ".join(others["may imply"])
        yield f"{card.name} usually comes with {usual}, which is not asked for"
    excluded = others.get("excludes", [])
    normal = [name for name in excluded if name in cards and cards[name].kind == "normal"]
    if card.kind == "abnormal" and normal:
        yield f"{card.name} excludes {', '.join(normal)}"


class Doubt(Record):
    """What does not fit, and why."""

    finding: str
    why: str


class Expectation(Record):
    """A finding that comes along with an asked one."""

    finding: str
    implies: str


class Assessment(Record):
    """Whether the findings fit each other, the modality and the patient."""

    implausible: list[Doubt] = Field(max_length=LONGEST_LIST)
    expected: list[Expectation] = Field(max_length=LONGEST_LIST)


def _question(plan: Plan) -> dict[str, object]:
    return {
        "plan": plan.model_dump(
            include={"modality", "age", "age_group", "sex", "view"}, exclude_none=True
        )
        | {
            "findings": [
                finding.model_dump(
                    include={"finding", "status", "side", "location", "severity", "size_mm"},
                    exclude_none=True,
                )
                for finding in plan.findings
            ]
        },
        "entailed": [one.model_dump() for one in plan.entailed],
    }


def _judged(plan: Plan, answer: Assessment, who: str) -> Plan:
    """The plan with a model's doubts; it can warn, and add or remove nothing."""
    asked = {finding.finding for finding in plan.findings}
    entailed = {(one.finding, one.other) for one in plan.entailed if one.relation != "excludes"}
    doubts, notes = [], []
    for doubt in answer.implausible:
        why = " ".join(doubt.why.split())[:LONGEST_DOUBT]
        if doubt.finding in asked and len(why.split()) >= SHORTEST_DOUBT:
            doubts.append(f'{doubt.finding}: {who} doubts it, "{why}"')
        elif doubt.finding in asked:
            notes.append(f"{who} doubted {doubt.finding} and gave no reason: left out")
        else:
            notes.append(f'{who} doubted "{doubt.finding}", which is not asked for: left out')
    for one in answer.expected:
        if (one.finding, one.implies) not in entailed:
            notes.append(
                f'{who} expects "{one.implies}" with "{one.finding}", which the knowledge base '
                "does not say: left out"
            )
    return plan.model_copy(
        update={
            "implausible": list(dict.fromkeys([*plan.implausible, *doubts])),
            "warnings": list(dict.fromkeys([*plan.warnings, *doubts])),
            "notes": list(dict.fromkeys([*plan.notes, *notes])),
        }
    )


def _sized(finding: Finding, plan: Plan) -> Finding:
    """A finding with the size that the user gave for it, the middle of the target's range."""
    for target in plan.measurements:
        low, high = target.expected
        own = target.finding == finding.finding and target.source == "request"
        if own and target.name == "diameter" and low is not None and high is not None:
            return finding.model_copy(update={"size_mm": round((low + high) / 2, 1)})
    return finding


def _by_rules(plan: Plan) -> Plan:
    cards = finding_cards().get(plan.modality, {})
    changes, notes = _defaults(plan)
    plan = plan.model_copy(update=changes)
    warnings = list(_measurable(plan))
    denied = {finding.finding for finding in plan.findings if finding.status == "absent"}
    findings = []
    entailed: list[Entailed] = []
    implausible: list[str] = list(_elsewhere(plan))
    shown: list[tuple[Finding, FindingCard]] = []
    for finding in plan.findings:
        card = cards.get(finding.finding)
        if card is not None and finding.code is None:
            finding = finding.model_copy(update={"code": card.code})
        finding = _sized(finding, plan)
        findings.append(finding)
        if card is not None and finding.status in SHOWN:
            shown.append((finding, card))
            implausible += _implausible(plan, card)
            warnings += _hidden(plan, card)
            own = list(_entailed(card, denied))
            entailed += own
            notes += _noted(card, own)
    warnings += [*implausible, *_left_to_chance(plan, shown)]
    return plan.model_copy(
        update={
            "findings": findings,
            "entailed": entailed,
            "implausible": list(dict.fromkeys(implausible)),
            "notes": list(dict.fromkeys([*plan.notes, *notes])),
            "warnings": list(dict.fromkeys([*plan.warnings, *warnings])),
        }
    )


def assess(plan: Plan, session: Session | None = None) -> Plan:
    """Codes, defaults, entailments and plausibility of a plan; the findings stay those asked for.

    Args:
        plan: As read and localized.
        session: Whom to ask what is implausible beside the rules.

    Returns:
        The plan with codes, asked sizes and, where a measured finding takes them for granted, view
        and age group; `entailed` what the findings imply and exclude, `notes` what was assumed,
        `implausible` and `warnings` what does not fit.
    """
    plan = _by_rules(plan)
    decided_by = RULES
    if session is not None and session.asks and plan.findings:
        outcome = session.ask("pathology", _question(plan), Assessment)
        decided_by = outcome.decided_by
        if outcome.answer is not None:
            plan = _judged(plan, outcome.answer, session.name)
    return plan.model_copy(update={"decided_by": plan.decided_by | {"pathology": decided_by}})

"""Words and numbers for the generator: the plan in its caption language, and the control.

Caption language: "<modality>, <view> view, <age group>, <sex>, <finding>, <finding>". Findings go
by their canonical names; what no image can show stays out. Knows the cards and the plan; knows no
backend and no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from medgen.agents.consistency import implied
from medgen.agents.language import rules
from medgen.agents.pathology import SHOWN, lung_density, measure_of
from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.records import Conditioning, Fact, Finding, Plan, Request

CARDIOTHORACIC_RATIO = "cardiothoracic ratio"


def _ratio(plan: Plan) -> float | None:
    """The cardiothoracic ratio to aim at, None when no finding speaks of the heart's size."""
    for target in plan.measurements:
        low, high = target.expected
        asked = target.source == "request" and target.name == "cardiothoracic_ratio"
        if asked and low is not None and high is not None:
            return round((low + high) / 2, 3)
    cards = finding_cards().get(plan.modality, {})
    for finding in plan.findings:
        measure = measure_of(finding.finding, plan.modality)
        if finding.status == "historical" or measure is None:
            continue
        if measure.name != CARDIOTHORACIC_RATIO:
            continue
        aims = rules("drawing")["cardiothoracic_ratio"][plan.age_group or "adult"]
        enlarged = cards[finding.finding].kind == "abnormal" and finding.status in SHOWN
        aim = aims.get(finding.severity or "unsaid" if enlarged else "normal")
        value = aim if aim is not None else measure.target if enlarged else measure.normal_target
        return float(value) if value is not None else None
    return None


def _opacities(plan: Plan) -> dict[str, float]:
    """Lung densities by side, the densest finding first to speak; none without a side."""
    densities: dict[str, float] = {}
    for finding in plan.findings:
        density = lung_density(finding, plan)
        if density is None or finding.side is None or finding.status not in SHOWN:
            continue
        for side in ("right", "left"):
            here = finding.side in (side, "bilateral")
            value = density["affected"] if here else density["other"]
            name = f"opacity_{side}"
            densities[name] = max(value, densities.get(name, 0.0))
    return densities


def _structured(plan: Plan) -> dict[str, float | str]:
    structured: dict[str, float | str] = {}
    ratio = _ratio(plan)
    if ratio is not None:
        structured["cardiothoracic_ratio"] = ratio
    structured.update(_opacities(plan))
    if ratio is not None and not any(lung_density(one, plan) for one in plan.findings):
        clear = rules("drawing")["lung_density"][plan.age_group or "adult"]["clear"]
        structured.update(opacity_right=clear, opacity_left=clear)
    if plan.modality in rules("drawing")["captions_say_patient"]:
        for name in ("view", "age_group", "sex"):
            value = getattr(plan, name)
            if value is not None:
                structured[name] = value
    return structured


def _denial(finding: Finding, cards: dict[str, FindingCard], shown: set[str]) -> str | None:
    """How the captions say that a finding is absent, None when they have no words for it."""
    denied = cards.get(finding.finding)
    if denied is None:
        return None
    phrases = {f"no {name}".lower() for name in (denied.name, *denied.synonyms)}
    for card in cards.values():
        if card.kind != "normal" or not card.captioned or shown & set(card.excludes):
            continue
        if card.name.lower() in phrases or card.excludes == [finding.finding]:
            return card.name
        said = [phrase for phrase in card.synonyms if phrase.lower() in phrases]
        if said:
            return said[0]
    return None


def _learned(
    finding: Finding, cards: dict[str, FindingCard], modality: str, denied: set[str]
) -> list[str]:
    """The finding's name and, if no caption carries it, the nearest entailed one that they do."""
    card = cards.get(finding.finding)
    if card is None or card.captioned:
        return [finding.finding]
    entailed = [name for name in implied(card.name, modality) if name not in denied]
    nearest = next((name for name in entailed if name in cards and cards[name].captioned), None)
    return [finding.finding, nearest] if nearest else [finding.finding]


def _in_words(finding: Finding) -> str:
    side = None if finding.location else finding.side
    words = " ".join(word for word in (finding.severity, side, finding.finding) if word)
    return f"{words} in the {finding.location}" if finding.location else words


def _finding_clauses(plan: Plan, describe: bool) -> list[str]:
    cards = finding_cards().get(plan.modality, {})
    shown = {finding.finding for finding in plan.findings if finding.status in SHOWN}
    denied = {finding.finding for finding in plan.findings if finding.status == "absent"}
    clauses: list[str] = []
    for finding in plan.findings:
        if finding.status in SHOWN:
            names = _learned(finding, cards, plan.modality, denied)
            clauses += [_in_words(finding), *names[1:]] if describe else names
            dense = lung_density(finding, plan)
            if dense is not None and finding.side in ("left", "right"):
                clauses.append(f"{finding.side} lung opacity")
        elif finding.status == "absent":
            denial = _denial(finding, cards, shown)
            clauses += [denial] if denial else []
    sided = any(clause.endswith("lung opacity") and " lung" in clause for clause in clauses)
    return [c for c in dict.fromkeys(clauses) if not (sided and c == "lung opacity")]


def _negative(plan: Plan) -> str:
    """Absent findings, what the shown ones exclude as far as captions say it, the card's own."""
    cards = finding_cards().get(plan.modality, {})
    card = modality_cards().get(plan.modality)
    unwanted = [finding.finding for finding in plan.findings if finding.status == "absent"]
    for finding in plan.findings:
        if finding.status in SHOWN and finding.finding in cards:
            excluded = cards[finding.finding].excludes
            unwanted += [name for name in excluded if name in cards and cards[name].captioned]
    if card is not None and card.negative_prompt:
        unwanted.append(card.negative_prompt)
    return ", ".join(dict.fromkeys(unwanted))


def compose(plan: Plan, facts: Sequence[Fact], describe: bool = False) -> Conditioning:
    """What the generator is told: a caption-like prompt, a negative prompt and numbers.

    Args:
        plan: Finished by the other roles.
        facts: What was retrieved; with `describe`, the signs among them are worded.
        describe: Add grade, place, patient and how each finding looks, for backends that were
            trained on free text. The bundled generator's captions have no such words.

    Returns:
        Conditioning with `structured` as in `medgen.generator.structured` (a name that is missing
        is not given); seed 0, to be set a candidate.
    """
    card = modality_cards().get(plan.modality)
    structured = _structured(plan)
    clauses = [card.drawing_phrase if card else plan.modality]
    if plan.view:
        clauses.append(f"{plan.view} view")
    if describe or plan.modality in rules("drawing")["captions_say_patient"]:
        clauses += [value for value in (plan.age_group, plan.sex) if value]
    clauses += _finding_clauses(plan, describe)
    if "cardiothoracic_ratio" in structured:
        clauses.append(f"{CARDIOTHORACIC_RATIO} {structured['cardiothoracic_ratio']:.2f}")
    if describe:
        known = {fact.id for fact in facts}
        clauses += [sign.text for sign in plan.signs if sign.fact is None or sign.fact in known]
    return Conditioning(
        prompt=", ".join(clauses),
        negative_prompt=_negative(plan),
        modality=plan.modality,
        structured=structured,
    )


def control(request: Request, plan: Plan) -> Conditioning:
    """The control: the user's own prompt as typed, the modality, and nothing else."""
    return Conditioning(prompt=request.prompt, modality=plan.modality, seed=request.seed)


def as_asked(told: Conditioning, request: Request) -> Conditioning:
    """A conditioning with the steps, guidance and negative prompt that the user gave, if any."""
    given = {
        "steps": request.steps,
        "guidance_scale": request.guidance,
        "negative_prompt": request.negative,
    }
    return told.model_copy(update={name: one for name, one in given.items() if one is not None})

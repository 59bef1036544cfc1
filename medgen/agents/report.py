"""Writes the report of what an image is to show: History, Technique, Findings, Impression.

The modality's template gives the shape, the modality card the sentences for what nobody asked
about, the plan the rest; nothing is claimed of a real patient. A language model may word the
findings and the impression; what it writes is read back and must say what the plan says. Knows no
image: verdicts are added by the graph once there are any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medgen.agents.anatomy import concerned_regions
from medgen.agents.language import rules
from medgen.agents.llm import RULES, Session
from medgen.agents.report_draft import drafted
from medgen.agents.report_fields import laid_out, region_fields
from medgen.agents.report_prose import described, named, ranked, sentence
from medgen.agents.undrawable import undrawable_by_kind
from medgen.agents.vocabulary import whole_normal
from medgen.knowledge.cards import finding_cards, modality_cards
from medgen.knowledge.templates import Template, report_templates
from medgen.records import Plan, Report, ReportField

PLAN_NOTICE = "This is the plan of a synthetic image: no patient was examined."
_NORMAL_START = "Not asked for and taken as unremarkable:"
_NONE_GIVEN = "None given."
_INDICATION = ("symptom", "history", "purpose", "other")
_TITLES = {
    "symptom": "Symptoms",
    "history": "Past history",
    "purpose": "Purpose",
    "other": "Also said",
    "uncertainty": "Words of doubt",
}


def _patient(plan: Plan) -> str:
    grown, young = {"female": "woman", "male": "man"}, {"female": "girl", "male": "boy"}
    words = young if plan.age_group == "child" else grown
    who = words.get(plan.sex or "", plan.age_group or "patient")
    if plan.age == 0:
        return f"An infant under one year{f', {plan.sex}' if plan.sex else ''}."
    if plan.age is not None:
        article = "An" if str(plan.age)[0] == "8" or plan.age in (11, 18) else "A"
        return f"{article} {plan.age}-year-old {'patient' if who == 'adult' else who}."
    if plan.sex is None and plan.age_group is None:
        return ""
    adult = "adult " if plan.age_group == "adult" and plan.sex else ""
    return f"{'An' if adult or who == 'adult' else 'A'} {adult}{who}."


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{said}"' for said in words)


def _given(said: Mapping[str, list[str]]) -> str:
    words = [word for kind in _INDICATION for word in said[kind]]
    return f"Given, not drawn: {_quoted(words)}." if words else ""


def _comparison(said: Mapping[str, list[str]], template: Template | None) -> str:
    if said["comparison"]:
        return f"No earlier image exists; not drawn: {_quoted(said['comparison'])}."
    return template.comparison if template else "None."


def _history_fields(plan: Plan, said: Mapping[str, list[str]]) -> list[ReportField]:
    values = {"Patient": _patient(plan) or _NONE_GIVEN}
    values |= {title: f"{_quoted(said[kind])}." for kind, title in _TITLES.items() if said[kind]}
    if len(values) == 1:
        values["Indication"] = _NONE_GIVEN
    return [
        ReportField(section="history", name=name, value=value) for name, value in values.items()
    ]


def _normal_sentences(plan: Plan, template: Template | None) -> dict[str, str]:
    """What is said of each region when nothing was asked there, the template's words first."""
    card = modality_cards().get(plan.modality)
    sentences = dict(card.report.normal_findings) if card else {}
    for field in template.fields if template else ():
        if field.normal is not None:
            first = next((r for r in field.regions if r in sentences), field.regions[0])
            for region in field.regions:
                sentences.pop(region, None)
            sentences[first] = field.normal
    return sentences


def _unconcerned(plan: Plan, template: Template | None) -> dict[str, str]:
    """Normal sentences of the regions that nothing touches; all of them for a normal image."""
    sentences = _normal_sentences(plan, template)
    if _is_whole(plan):
        return sentences
    concerned = concerned_regions(plan)
    cards = finding_cards().get(plan.modality, {})
    denied = {
        cards[finding.finding].region
        for finding in plan.findings
        if finding.status == "absent" and finding.finding in cards
    }
    within = rules("report")["within"].get(plan.modality, {})
    return {
        region: said
        for region, said in sentences.items()
        if region not in concerned | denied and concerned.isdisjoint(within.get(region, ()))
    }


def _is_whole(plan: Plan) -> bool:
    return whole_normal(plan.modality) in [finding.finding for finding in plan.findings]


def _impression_fields(plan: Plan, template: Template | None) -> list[ReportField]:
    cards = finding_cards().get(plan.modality, {})
    card = modality_cards().get(plan.modality)
    normal = (template and template.impression_normal) or (card and card.report.impression_normal)
    items = ranked(plan)
    abnormal = any(
        f.status != "absent" and (f.finding not in cards or cards[f.finding].kind == "abnormal")
        for f in items
    )
    lines: list[tuple[str, str | None, str | None]] = []
    if _is_whole(plan) and not abnormal and normal:
        lines.append((normal, whole_normal(plan.modality), None))
        items = [finding for finding in items if finding.status == "absent"]
    lines += [
        (sentence(named(f, cards.get(f.finding), plan)), f.finding, f.code) for f in items
    ] or ([] if lines else [("No finding asked for.", None, None)])
    return [
        ReportField(section="impression", name=str(n), value=text, finding=finding, code=code)
        for n, (text, finding, code) in enumerate(lines, 1)
    ]


def _findings_prose(plan: Plan, unconcerned: dict[str, str]) -> str:
    cards = finding_cards().get(plan.modality, {})
    sentences = [
        described(finding, cards.get(finding.finding), plan)
        for finding in plan.findings
        if finding.status != "historical"
    ]
    if unconcerned and plan.findings:
        sentences += [] if _is_whole(plan) else [_NORMAL_START]
        sentences += unconcerned.values()
    return " ".join(sentences) or "No finding is asked for."


def write_report(plan: Plan, session: Session | None = None) -> Plan:
    """Fill the plan's report from the modality's template and what is planned.

    Args:
        plan: Assessed, localized and with its signs.
        session: Whom to ask for the wording of findings and impression.

    Returns:
        The plan with its report. Every asked finding is named with grade, place and code, its
        signs with the number of the retrieved fact in `plan.cited`. Regions that nothing touches
        get the normal sentences, marked as not asked for unless the whole image is to be normal.
        `fields` say the same field by field, `text` in the template's layout. A modality without a
        card gets a plain technique line and no normal sentences.

    Raises:
        BadInput: A template of the user's cannot be used.
    """
    card = modality_cards().get(plan.modality)
    template = report_templates().get(plan.modality)
    view = f", {plan.view} view" if plan.view else ""
    said = undrawable_by_kind(plan)
    history = " ".join(part for part in (_patient(plan), _given(said)) if part) or _NONE_GIVEN
    technique = f"{plan.modality}{view}."
    if card is not None:
        own = template or Template(name="", modality=card.name, source="")
        wording = own.history or card.report.history
        history = wording.replace("{indication}", history)
        technique = (own.technique or card.report.technique).replace("{view}", view)
    unconcerned = _unconcerned(plan, template)
    items = _impression_fields(plan, template)
    findings = _findings_prose(plan, unconcerned)
    impression = " ".join(f"{item.name}. {item.value}" for item in items)
    decided_by = RULES
    if session is not None and session.asks and plan.findings:
        outcome = drafted(plan, list(unconcerned.values()), session)
        decided_by = outcome.decided_by
        if outcome.answer is not None:
            findings, impression = outcome.answer.findings, outcome.answer.impression
    comparison = _comparison(said, template)
    report = Report(
        history=history,
        technique=f"{technique} {PLAN_NOTICE}",
        findings=findings,
        impression=impression,
        template=template.name if template else "",
        fields=[
            *_history_fields(plan, said),
            ReportField(section="technique", name="Modality", value=technique),
            ReportField(section="technique", name="Status", value=PLAN_NOTICE),
            ReportField(section="comparison", name="Comparison", value=comparison),
            *region_fields(plan, template, unconcerned),
            *items,
        ],
    )
    report = report.model_copy(update={"text": laid_out(report, template, comparison)})
    decided = plan.decided_by | {"report": decided_by}
    return plan.model_copy(update={"report": report, "decided_by": decided})

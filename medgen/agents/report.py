"""Writes the report of what an image is to show: History, Technique, Findings, Impression.

Sentences come from the modality card's template and the plan; nothing is claimed of a real
patient. Knows no image: verdicts are added by the graph once there are any.
"""

from __future__ import annotations

from collections.abc import Sequence

from medgen.agents.anatomy import concerned_regions
from medgen.agents.language import rules
from medgen.agents.llm import Session
from medgen.agents.pathology import SHOWN
from medgen.agents.vocabulary import whole_normal
from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.records import Fact, Finding, Plan, Report

PLAN_NOTICE = "This is the plan of a synthetic image: no patient was examined."
_NORMAL_START = "Not asked for and taken as unremarkable:"


def _sentence(words: str) -> str:
    text = words.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


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


def _history(plan: Plan) -> str:
    doubts = set(rules("context")["uncertain"]["before"] + rules("context")["uncertain"]["after"])
    said = [f'"{words}"' for words in plan.not_drawable if words.lower() not in doubts]
    given = f"Given, not drawn: {', '.join(said)}." if said else ""
    return " ".join(part for part in (_patient(plan), given) if part) or "None given."


def _where(finding: Finding, card: FindingCard | None) -> str:
    if finding.location:
        return f"of the {finding.location}"
    if finding.side is None:
        return ""
    eye = card is not None and finding.side and _of_one_eye(card.modality)
    if finding.side == "bilateral":
        return "in both eyes" if eye else "on both sides"
    return f"in the {finding.side} eye" if eye else f"on the {finding.side}"


def _of_one_eye(modality: str) -> bool:
    names = {region.name for region in modality_cards()[modality].regions}
    return "globe" in names


def _extent(finding: Finding, plan: Plan) -> str:
    words = []
    for target in plan.measurements:
        if target.finding != finding.finding or target.source != "request":
            continue
        low, high = target.expected
        if target.name == "cardiothoracic_ratio" and low is not None and high is not None:
            words.append(f"cardiothoracic ratio about {(low + high) / 2:.2f}")
        if target.name == "diameter" and low is not None and high is not None:
            words.append(f"about {(low + high) / 2:g} {target.unit}")
        elif target.name == "count" and low is not None:
            words.append(f"{low:g} in number")
    return ", ".join(words)


def _expected(finding: Finding, plan: Plan) -> str:
    for target in plan.measurements:
        if target.finding == finding.finding and target.source != "request":
            low, high = target.expected
            if low is not None and high is not None:
                span = f"{low:g}-{high:g}"
            else:
                span = f"above {low:g}" if low is not None else f"below {high:g}"
            name = target.name.replace("_", " ")
            if name.startswith("opacity "):
                name = f"density of the {name.removeprefix('opacity ')} lung"
            return f"{name} {span}"
    return ""


def named(finding: Finding, card: FindingCard | None, plan: Plan) -> str:
    """A finding in words: status, grade, name, place, size; without its code."""
    normal = card is not None and card.kind == "normal"
    doubt = "possible" if finding.status == "uncertain" else ""
    denied = "no" if finding.status == "absent" else ""
    where = "" if normal else _where(finding, card)
    parts = [denied, doubt, finding.severity or "", finding.finding, where]
    words = " ".join(part for part in parts if part)
    extent = _extent(finding, plan)
    return f"{words}, {extent}" if extent else words


def _reference(fact: str | None, plan: Plan) -> str:
    """A cited fact as its number in `plan.cited`, counted from 1."""
    return f" [{plan.cited.index(fact) + 1}]" if fact in plan.cited and fact else ""


def _described(finding: Finding, card: FindingCard | None, plan: Plan) -> str:
    words = named(finding, card, plan)
    code = f" ({finding.code})" if finding.code else ""
    if finding.status == "absent":
        return _sentence(f"{words}{code}")
    signs = [sign for sign in plan.signs if sign.finding == finding.finding][:2]
    looks = "; ".join(f"{sign.text}{_reference(sign.fact, plan)}" for sign in signs)
    measured = _expected(finding, plan)
    details = "; ".join(part for part in (looks, measured) if part)
    return _sentence(f"{words}{code}: {details}" if details else f"{words}{code}")


def _unconcerned(plan: Plan) -> list[str]:
    """Normal sentences of the regions that nothing touches; all of them for a normal image."""
    card = modality_cards().get(plan.modality)
    if card is None:
        return []
    if _is_whole(plan):
        return list(card.report.normal_findings.values())
    concerned = concerned_regions(plan)
    cards = finding_cards().get(plan.modality, {})
    denied = {
        cards[finding.finding].region
        for finding in plan.findings
        if finding.status == "absent" and finding.finding in cards
    }
    within = rules("report")["within"].get(plan.modality, {})
    return [
        sentence
        for region, sentence in card.report.normal_findings.items()
        if region not in concerned | denied and concerned.isdisjoint(within.get(region, ()))
    ]


def _impression(plan: Plan) -> str:
    cards = finding_cards().get(plan.modality, {})
    card = modality_cards().get(plan.modality)
    shown = [f for f in plan.findings if f.status in SHOWN]
    abnormal = [f for f in shown if f.finding not in cards or cards[f.finding].kind == "abnormal"]
    order = {"severe": 0, "moderate": 1, None: 2, "mild": 2}
    ranked = sorted(abnormal, key=lambda f: (f.status == "uncertain", order[f.severity]))
    lines = [_sentence(named(f, cards.get(f.finding), plan)) for f in ranked]
    if not abnormal:
        if card is not None and _is_whole(plan):
            lines.append(card.report.impression_normal)
        else:
            lines += [_sentence(named(f, cards.get(f.finding), plan)) for f in shown]
    denied = [f for f in plan.findings if f.status == "absent"]
    lines += [_sentence(named(f, cards.get(f.finding), plan)) for f in denied]
    return " ".join(f"{n}. {line}" for n, line in enumerate(lines or ["No finding asked for."], 1))


def _is_whole(plan: Plan) -> bool:
    return whole_normal(plan.modality) in [finding.finding for finding in plan.findings]


def write_report(plan: Plan, session: Session | None = None) -> Plan:
    """Fill the plan's report from the modality card's template and what is planned.

    Every asked finding is named with grade, place and code, its signs with the number of the
    retrieved fact in `plan.cited`. Regions that nothing touches get the template's normal
    sentences, marked as not asked for unless the whole image is to be normal. A modality without
    a card gets a plain technique line and no normal sentences.
    """
    card = modality_cards().get(plan.modality)
    cards = finding_cards().get(plan.modality, {})
    view = f", {plan.view} view" if plan.view else ""
    history = _history(plan)
    technique = f"{plan.modality}{view}."
    if card is not None:
        history = card.report.history.format(indication=history)
        technique = card.report.technique.format(view=view)
    sentences = [
        _described(finding, cards.get(finding.finding), plan)
        for finding in plan.findings
        if finding.status != "historical"
    ]
    rest = _unconcerned(plan)
    if rest and plan.findings:
        sentences += rest if _is_whole(plan) else [_NORMAL_START, *rest]
    report = Report(
        history=history,
        technique=f"{technique} {PLAN_NOTICE}",
        findings=" ".join(sentences) or "No finding is asked for.",
        impression=_impression(plan),
    )
    decided = plan.decided_by | {"report": "rules"}
    return plan.model_copy(update={"report": report, "decided_by": decided})


def _cell(value: object) -> str:
    text = "-" if value is None or value == "" else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows), ""]


def _bounds(expected: tuple[float | None, float | None]) -> str:
    low, high = expected
    return f"{'' if low is None else f'{low:g}'} - {'' if high is None else f'{high:g}'}".strip()


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {line}" for line in lines), ""] if lines else []


def render_markdown(plan: Plan, facts: Sequence[Fact]) -> str:
    """The plan and its report as Markdown: report, findings, regions, numbers, sources, warnings.

    Args:
        plan: With its report written (written now if it is not).
        facts: What was retrieved; those that the plan cites are listed with id and source.
    """
    report = (plan if plan.report else write_report(plan)).report
    assert report is not None
    lines = [f"# Plan of a synthetic {plan.modality}", "", f"> {_cell(plan.prompt)}", ""]
    for title in ("history", "technique", "findings", "impression"):
        lines += [f"**{title.capitalize()}.** {getattr(report, title)}", ""]
    if plan.findings:
        header = ("finding", "status", "side", "location", "severity", "code")
        rows = [[getattr(f, name) for name in header] for f in plan.findings]
        lines += ["## Asked for", "", *_table(header, rows)]
    if plan.regions:
        region_rows = [(r.name, r.side, r.code or "none known", r.box) for r in plan.regions]
        where = ("region", "side", "code", "box (left, top, right, bottom)")
        lines += ["## Where", "", *_table(where, region_rows)]
    if plan.measurements:
        numbers = ("number", "finding", "expected", "unit", "source")
        number_rows = [
            (m.name, m.finding, _bounds(m.expected), m.unit, m.source) for m in plan.measurements
        ]
        lines += ["## Numbers aimed at", "", *_table(numbers, number_rows)]
    by_id = {fact.id: fact for fact in facts}
    used = [(n, by_id[fact]) for n, fact in enumerate(plan.cited, 1) if fact in by_id]
    if used:
        shown = [f"{n}. `{f.id}` {_cell(f.text)} ({_cell(f.source)})" for n, f in used]
        lines += ["## Facts used", "", *shown, ""]
    cases = [fact for fact in facts if fact.kind == "case"]
    lines += _listed(
        "Nearest real cases", [f"`{f.id}` {_cell(f.text)} ({f.source})" for f in cases]
    )
    lines += _listed("Taken for granted and entailed", plan.notes)
    lines += _listed("Warnings", plan.warnings)
    return "\n".join(lines).rstrip() + "\n"

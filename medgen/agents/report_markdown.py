"""The plan and its report as one Markdown page: for a person who asks why.

Knows records; decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from medgen.agents.llm import RULES
from medgen.agents.report import write_report
from medgen.records import Fact, Plan

NO_CODE = "none known"


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
        rows = [
            [f.finding, f.status, f.side, f.location, f.severity, f.code or NO_CODE]
            for f in plan.findings
        ]
        lines += ["## Asked for", "", *_table(header, rows)]
    fields = [(f.section, f.name, f.value, f.code) for f in report.fields]
    if fields:
        lines += ["## Field by field", "", *_table(("section", "field", "value", "code"), fields)]
    if plan.regions:
        region_rows = [
            (r.name, r.side, r.code or NO_CODE, r.box, r.box_source) for r in plan.regions
        ]
        where = ("region", "side", "code", "box (left, top, right, bottom)", "box from")
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
    told = [f"{role}: {who}" for role, who in plan.decided_by.items() if who != RULES]
    lines += _listed("Decided not by rules alone", [_cell(line) for line in told])
    return "\n".join(lines).rstrip() + "\n"

"""Shows a plan: what was understood, what will be drawn, and what will be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medgen.console.text import fold, note, one_line

if TYPE_CHECKING:
    from medgen.records import MeasurementTarget, Plan

NO_CODE = "no id known"


def show_plan(plan: Plan) -> None:
    """Print a plan: what was understood, what will be drawn, and what will be measured."""
    from medgen.graphs.outcome import phrase

    console = Console()
    console.print(Text.assemble(("modality  ", "dim"), fold(plan.modality)))
    table = Table()
    for column in ("finding", "code", "looks like", "measured by"):
        table.add_column(column, overflow="fold")
    for finding in plan.findings:
        signs = [sign.text for sign in plan.signs if sign.finding == finding.finding]
        targets = [one for one in plan.measurements if one.finding == finding.finding]
        table.add_row(
            fold(phrase(finding)),
            fold(finding.code or NO_CODE),
            fold("; ".join(signs) or "-"),
            fold("; ".join(_target(one) for one in targets) or "-"),
        )
    if plan.findings:
        console.print(table)
    for region in plan.regions:
        where = f"{region.side} {region.name}" if region.side else region.name
        console.print(
            Text.assemble(("where  ", "dim"), fold(where), (f"  {region.code or NO_CODE}", "dim"))
        )
    if plan.report is not None:
        for section in ("history", "technique", "findings", "impression"):
            body = getattr(plan.report, section)
            console.print(Text.assemble((f"{section.capitalize()}: ", "bold"), fold(body)))
    for words in plan.not_drawable:
        console.print(Text.assemble(("not drawable: ", "yellow"), fold(words)))
    for warning in plan.warnings:
        console.print(note(warning))
    for assumption in plan.notes:
        console.print(fold(f"taken for granted: {assumption}", "dim"))
    for role, who in plan.decided_by.items():
        if who != "rules":
            console.print(fold(f"{role} by {one_line(who)}", "dim"))
    if plan.cited:
        facts = ", ".join(f"[{number}] {fact}" for number, fact in enumerate(plan.cited, start=1))
        console.print(fold(f"facts used: {facts}", "dim"))


def _target(target: MeasurementTarget) -> str:
    from medgen.graphs.outcome import expected_range
    from medgen.records import Measurement

    asked = Measurement(name=target.name, value=0, expected=target.expected, check="")
    return f"{target.name} {expected_range(asked)} {target.unit}".rstrip()

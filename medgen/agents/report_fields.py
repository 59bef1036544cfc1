"""A report field by field, and laid out as its template says.

Field names and sections follow structured reporting as the RSNA's templates have it: a fixed list
of fields, each with a value and, where it is about a finding, that finding and its code. Knows plan
and template; words come from `report_prose`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from medgen.agents.anatomy import regions_of
from medgen.agents.report_prose import named, sentence
from medgen.knowledge.cards import finding_cards
from medgen.knowledge.templates import FIELD, FIELDS, OTHER, PLACEHOLDER, PLAIN_LAYOUT, Template
from medgen.records import Plan, Report, ReportField

NOT_STATED = "Not stated."


def region_fields(
    plan: Plan, template: Template | None, unconcerned: Mapping[str, str]
) -> list[ReportField]:
    """The fields of the findings section, in the template's order.

    Args:
        plan: With codes and places.
        template: Whose fields; None puts everything into "Other".
        unconcerned: Normal sentences by region, of regions that nothing touches.

    Returns:
        For each field one record a finding that lies in it; else its normal sentences; else "Not
        stated." Findings that lie in no field come last, under "Other".
    """
    cards = finding_cards().get(plan.modality, {})
    asked = [finding for finding in plan.findings if finding.status != "historical"]
    lies_in = {
        number: {region.name for region in regions_of(finding, plan.modality)}
        for number, finding in enumerate(asked)
    }
    placed: set[int] = set()
    fields: list[ReportField] = []

    def add(number: int, name: str) -> None:
        finding = asked[number]
        words = sentence(named(finding, cards.get(finding.finding), plan))
        fields.append(
            ReportField(
                section="findings",
                name=name,
                value=words,
                finding=finding.finding,
                code=finding.code,
            )
        )
        placed.add(number)

    for field in template.fields if template else ():
        here = [number for number in lies_in if lies_in[number] & set(field.regions)]
        for number in here:
            add(number, field.name)
        if not here:
            normal = [unconcerned[region] for region in field.regions if region in unconcerned]
            value = " ".join(normal) or NOT_STATED
            fields.append(ReportField(section="findings", name=field.name, value=value))
    for number in lies_in:
        if number not in placed:
            add(number, OTHER)
    return fields


def _values(report: Report, name: str) -> str:
    said = [f.value for f in report.fields if f.section == "findings" and f.name == name]
    return " ".join(said) or NOT_STATED


def laid_out(report: Report, template: Template | None, comparison: str) -> str:
    """The whole report as text, in the template's layout."""
    layout = template.layout if template else PLAIN_LAYOUT
    names = dict.fromkeys(f.name for f in report.fields if f.section == "findings")
    filled = {
        "history": report.history,
        "technique": report.technique,
        "comparison": comparison,
        "findings": report.findings,
        "impression": report.impression,
        FIELDS: "\n".join(f"{name}: {_values(report, name)}" for name in names),
    }

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return filled[name] if name in filled else _values(report, name.removeprefix(FIELD))

    return PLACEHOLDER.sub(fill, layout).strip() + "\n"

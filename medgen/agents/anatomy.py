"""Localizes findings: the regions a plan concerns, with RadLex ids, sides and boxes in the frame.

Radiological convention: the patient's right is on the image's left. Knows the modality card's
regions; knows no image.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from medgen.agents.chat_model import LONGEST_LIST
from medgen.agents.consistency import implied
from medgen.agents.language import rules
from medgen.agents.llm import RULES, Session
from medgen.agents.vocabulary import places
from medgen.knowledge.cards import RegionCard, finding_cards, modality_cards
from medgen.records import Finding, Plan, Record, Region, Side

_SHOWN = ("present", "uncertain")
_SIDES: tuple[Side, ...] = ("left", "right", "bilateral")


def _box_source(region: str, modality: str) -> str | None:
    known = rules("anatomy")["boxes"].get(modality)
    if known is None:
        return "the modality card"
    measured = region in known.get("measured", [])
    return f"measured: {known['how']}" if measured else f"display geometry: {known['geometry']}"


def _region(card: RegionCard, side: Side | None, modality: str) -> Region:
    if side == "left":
        code, box = card.left_code or card.code, card.left or card.box
    elif side == "right":
        code, box = card.right_code or card.code, card.right or card.box
    else:
        code, box = card.code, card.box
    sided = bool(card.left or card.right or card.left_code or card.right_code)
    return Region(
        name=card.name,
        code=code,
        side=side if sided else None,
        box=box,
        box_source=_box_source(card.name, modality) if box else None,
    )


def _said(location: str, side: Side | None) -> tuple[str, Side | None]:
    for word in _SIDES:
        if location.startswith(f"{word} "):
            return location.removeprefix(f"{word} "), word
    return location, side


def regions_of(finding: Finding, modality: str) -> Iterator[Region]:
    """The regions of one finding: where it was said to lie, else where its card puts it.

    Args:
        finding: As asked, with side and location.
        modality: A modality with a card; for others there are no regions.
    """
    card = modality_cards().get(modality)
    if card is None:
        return
    regions = {region.name: region for region in card.regions}
    region_at = {place.name: place.region for _, place in places(modality)}
    found = False
    for location in finding.location.split(" and ") if finding.location else ():
        name, side = _said(location, finding.side)
        if region_at.get(name) in regions:
            found = True
            yield _region(regions[region_at[name]], side, modality)
    known = finding_cards().get(modality, {}).get(finding.finding)
    if not found and known is not None and known.region in regions:
        yield _region(regions[known.region], finding.side, modality)


def concerned_regions(plan: Plan) -> set[str]:
    """Names of all regions that shown findings and what they entail touch."""
    cards = finding_cards().get(plan.modality, {})
    names: set[str] = set()
    for finding in plan.findings:
        if finding.status in _SHOWN:
            names.update(region.name for region in regions_of(finding, plan.modality))
            for name in (finding.finding, *implied(finding.finding, plan.modality)):
                region = cards[name].region if name in cards else None
                names.update({region} if region else set())
    return names


class Placed(Record):
    """Where a model puts a finding."""

    finding: str
    region: str
    side: Side | None


class Localization(Record):
    """Where the findings lie."""

    regions: list[Placed] = Field(max_length=LONGEST_LIST)


def _asked_where(plan: Plan) -> dict[str, list[Region]]:
    """The regions of every finding but past ones, by rules."""
    return {
        finding.finding: list(regions_of(finding, plan.modality))
        for finding in plan.findings
        if finding.status != "historical"
    }


def _placed(plan: Plan, answer: Localization, who: str) -> tuple[list[Region], list[str]]:
    """Regions for findings that the rules cannot place, and what was made of the answer.

    Names, codes and boxes come from the modality card, sides from the request; a place that was
    said or that the finding's card knows is not moved.
    """
    known = {card.name: card for card in modality_cards()[plan.modality].regions}
    ruled = _asked_where(plan)
    by_name = {finding.finding: finding for finding in plan.findings}
    regions, notes = [], []
    for placed in answer.regions:
        if placed.finding not in ruled:
            notes.append(f'{who} placed "{placed.finding}", which is not asked for: left out')
        elif placed.region not in known:
            notes.append(f'{who} named "{placed.region}", which is no region here: left out')
        elif not ruled[placed.finding]:
            side = by_name[placed.finding].side
            regions.append(_region(known[placed.region], side, plan.modality))
            notes.append(f"{who} placed {placed.finding} in the {placed.region}")
        elif placed.region not in {region.name for region in ruled[placed.finding]}:
            where = " and ".join(region.name for region in ruled[placed.finding])
            notes.append(f"{who} placed {placed.finding} in the {placed.region}: kept in {where}")
    return regions, notes


def _question(plan: Plan) -> dict[str, object]:
    shown = [finding for finding in plan.findings if finding.status in _SHOWN]
    return {
        "request": plan.prompt,
        "modality": plan.modality,
        "findings": [
            finding.model_dump(include={"finding", "status", "side", "location"})
            for finding in shown
        ],
        "regions": [region.name for region in modality_cards()[plan.modality].regions],
    }


def localize(plan: Plan, session: Session | None = None) -> Plan:
    """Fill the plan's regions, each once, in the order of the findings (past ones have none).

    Args:
        plan: As read.
        session: Whom to ask where a finding lies that neither request nor card places.
    """
    found = [region for regions in _asked_where(plan).values() for region in regions]
    notes: list[str] = []
    decided_by = RULES
    if session is not None and session.asks and plan.findings and plan.modality in modality_cards():
        outcome = session.ask("anatomy", _question(plan), Localization)
        decided_by = outcome.decided_by
        if outcome.answer is not None:
            more, notes = _placed(plan, outcome.answer, session.name)
            found += more
    regions = [region for number, region in enumerate(found) if region not in found[:number]]
    return plan.model_copy(
        update={
            "regions": regions,
            "notes": list(dict.fromkeys([*plan.notes, *notes])),
            "decided_by": plan.decided_by | {"anatomy": decided_by},
        }
    )

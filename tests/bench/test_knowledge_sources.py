"""Every bundled id against the tables it was taken from (../shared/knowledge, not in the clone)."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "knowledge"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/knowledge")


def shared(name: str) -> list[dict[str, str]]:
    with (SHARED / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def bundled(name: str) -> list[dict[str, str]]:
    path = resources.files("medgen.knowledge") / "base" / "facts" / name
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_anatomy_is_the_tables_own():
    known = {row["rid"]: row for row in shared("anatomy.csv")}
    rows = bundled("anatomy.csv")
    assert len(rows) > 600
    for row in rows:
        source = known[row["rid"]]
        assert (row["label"], row["region"]) == (source["label"], source["region"])
        for link in ("contained_by", "part_of", "left", "right", "unsided"):
            assert row[link] in ("", source[link]), (row["rid"], link)
        snomed = {f"SNOMEDCT:{code}" for code in source["snomed"].split("|") if code}
        assert set(filter(None, row["codes"].split("|"))) <= snomed | set(
            source["codes"].split("|")
        )


def test_radlex_codes_are_the_tables_own():
    names = {row["rid"]: row["label"] for row in shared("anatomy.csv")}
    names |= {row["rid"]: row["label"] for row in shared("radlex_terms.csv")}
    rows = [row for row in bundled("codes.csv") if row["code"].startswith("RADLEX:")]
    assert len(rows) > 50
    for row in rows:
        assert names[row["code"].removeprefix("RADLEX:")] == row["name"]


def test_imaging_findings_are_the_tables_own():
    names = {row["oifm_id"]: row["name"].strip() for row in shared("findings.csv")}
    radlex = {f"RADLEX:{row['rid']}": row["label"] for row in shared("radlex_terms.csv")}
    rows = [row for row in bundled("terms.csv") if row["id"].startswith("OIFM:")]
    assert len(rows) > 300
    for row in rows:
        assert names[f"OIFM_{row['id'].removeprefix('OIFM:')}"] == row["name"]
        for code in filter(None, row["codes"].split("|")):
            assert code.startswith("SNOMEDCT:") or radlex[code].lower() == row["name"].lower()

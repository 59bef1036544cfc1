"""Codes for DICOM: findings, values, measurements and units as coded concepts.

Only codes of pydicom's dictionaries and those that come with a finding (from medgen's own tables)
are written; everything else gets a code of the local scheme, declared as such in each file.
Source: DICOM PS3.16 chapter 8. Needs highdicom (`pip install "medgen[dicom]"`).
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from medgen.records import Record

if TYPE_CHECKING:
    from highdicom.sr.coding import CodedConcept
    from pydicom.dataset import Dataset

LONGEST_MEANING = 64


class ModalityTerms(Record):
    """How images of a modality are described: defined terms and a keyword of a region's code.

    `paired` is true for an organ with a left and a right, and where the organ is not known.
    """

    body_part: str = ""
    region: str | None = None
    paired: bool = False
    orientation: list[str] = Field(default_factory=list)


class Scheme(Record):
    """A coding scheme: its designator and name; `prefixed` where values keep medgen's prefix."""

    designator: str
    name: str
    prefixed: bool = False


class Terms(Record):
    """`dicom_terms.yaml`."""

    modalities: dict[str, ModalityTerms]
    schemes: dict[str, Scheme]
    local: Scheme
    values: dict[str, str]
    measurements: dict[str, str]
    units: dict[str, str]


UNKNOWN = ModalityTerms(paired=True)


@lru_cache
def terms() -> Terms:
    """The bundled table, read once."""
    text = resources.files("medgen.data.exports").joinpath("dicom_terms.yaml")
    return Terms.model_validate(yaml.safe_load(text.read_text(encoding="utf-8")))


def of_modality(modality: str) -> ModalityTerms:
    """The terms of a modality card's name; none for a modality of the user's own."""
    return terms().modalities.get(modality, UNKNOWN)


def known(keyword: str) -> CodedConcept:
    """The concept of pydicom's dictionaries behind "SCHEME.Keyword"."""
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    scheme, name = keyword.split(".")
    return CodedConcept.from_code(getattr(getattr(codes, scheme), name))


def local(value: str, meaning: str = "") -> CodedConcept:
    """A concept of medgen's local scheme, known by the name that medgen uses."""
    return _concept(value, terms().local.designator, meaning or value)


def finding(name: str, code: str | None) -> CodedConcept:
    """A finding by its verified code, or by its canonical name where it has none.

    Args:
        name: Canonical name.
        code: Such as "RADLEX:RID1385"; a scheme that DICOM terms do not list counts as none.
    """
    prefix, _, value = (code or "").partition(":")
    scheme = terms().schemes.get(prefix)
    if scheme is None or not value:
        return local(name)
    return _concept(code or "" if scheme.prefixed else value, scheme.designator, name)


def value(word: str) -> CodedConcept:
    """A status, side or severity."""
    keyword = terms().values.get(word)
    return known(keyword) if keyword else local(word)


def measurement(name: str) -> CodedConcept:
    """What was measured."""
    for beginning, keyword in terms().measurements.items():
        if name.startswith(beginning):
            return known(keyword)
    return local(name, name.replace("_", " "))


def unit(name: str) -> CodedConcept:
    """A unit; one that is not in the table becomes a UCUM annotation, which has no dimension."""
    keyword = terms().units.get(name)
    if keyword:
        return known(keyword)
    plain = "".join(c for c in name if c.isascii() and c.isprintable() and c not in "{}")
    return _concept(f"{{{plain}}}", "UCUM", name)


def declare_local_schemes(dataset: Dataset) -> None:
    """Say in a file which of its coding schemes are local (Coding Scheme Identification)."""
    from pydicom.dataset import Dataset

    used = _designators(dataset)
    items = []
    for scheme in (terms().local, *terms().schemes.values()):
        if scheme.designator.startswith("99") and scheme.designator in used:
            item = Dataset()
            item.CodingSchemeDesignator = scheme.designator
            item.CodingSchemeName = scheme.name
            item.CodingSchemeResponsibleOrganization = "medgen"
            items.append(item)
    if items:
        dataset.CodingSchemeIdentificationSequence = items


def _designators(dataset: Dataset) -> set[str]:
    found: set[str] = set()

    def note(_dataset: Any, element: Any) -> None:
        if element.keyword == "CodingSchemeDesignator":
            found.add(str(element.value))

    dataset.walk(note)
    return found


def _concept(value: str, designator: str, meaning: str) -> CodedConcept:
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(value, designator, meaning[:LONGEST_MEANING])

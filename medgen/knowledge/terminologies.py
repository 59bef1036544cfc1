"""Readers of what a user may hold: RadLex as OWL, SNOMED CT as RF2, any ontology as OBO.

Each yields terms one by one, so that a file of any size is read in little memory. Knows the file
formats; nothing of where terms are kept. Formats: OBO 1.4; OWL 2 in RDF/XML; SNOMED CT Release
File Specification (RF2). Only plain text is read: entities and network references are refused.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

from medgen.errors import BadInput

MAX_NAME = 300
MAX_DEFINITION = 1000
IS_A = "is_a"
SNOMED_SYNONYM = "900000000000013009"
SNOMED_FULL_NAME = "900000000000003001"
SNOMED_IS_A = "116680003"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_OWL_NAMES = ("Preferred_name", "prefLabel", "label")
_OWL_SYNONYMS = (
    "Synonym",
    "synonym",
    "altLabel",
    "hasExactSynonym",
    "hasRelatedSynonym",
    "Acronym",
)
_OWL_DEFINITIONS = ("Definition", "definition", "IAO_0000115")


@dataclass
class Term:
    """A term: id with its scheme ("RADLEX:RID1301"), names, definition, relations, other codes.

    `relations` are (kind, id of the other term), such as ("is_a", "RADLEX:RID3").
    """

    id: str
    name: str
    synonyms: list[str] = field(default_factory=list)
    definition: str = ""
    relations: list[tuple[str, str]] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


def _tidy(term: Term) -> Term:
    term.name = " ".join(term.name.split())[:MAX_NAME]
    own = term.name.lower()
    names = {" ".join(text.split())[:MAX_NAME]: None for text in term.synonyms}
    term.synonyms = [name for name in names if name and name.lower() != own]
    term.definition = " ".join(term.definition.split())[:MAX_DEFINITION]
    term.relations = list(dict.fromkeys(term.relations))
    return term


def _readable(path: Path, what: str) -> None:
    if not path.is_file():
        raise BadInput(f"no {what} at {path}: give the path of the file")


def _kind(name: str) -> str:
    """A relation's name as lower-case words joined by underscores."""
    name = name.rpartition("#")[2].rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "related_to"


_OBO_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _obo_term(lines: list[str]) -> Term | None:
    term = Term("", "")
    for line in lines:
        tag, separator, value = line.partition(": ")
        if not separator:
            continue
        value = value.strip()
        quoted = _OBO_QUOTED.search(value) if tag in ("def", "synonym") else None
        if tag == "id":
            term.id = value
        elif tag == "name":
            term.name = value
        elif quoted and tag == "def":
            term.definition = quoted[1].replace('\\"', '"')
        elif quoted:
            term.synonyms.append(quoted[1].replace('\\"', '"'))
        elif tag in ("is_a", "relationship"):
            words = value.partition(" ! ")[0].partition(" {")[0].split()
            if tag == "is_a" and words:
                term.relations.append((IS_A, words[0]))
            elif tag == "relationship" and len(words) > 1:
                term.relations.append((_kind(words[0]), words[1]))
        elif tag == "xref":
            term.codes.append(value.partition(" ")[0].replace("SNOMEDCT_US:", "SNOMEDCT:"))
        elif tag == "is_obsolete" and value == "true":
            return None
    return _tidy(term) if term.id and term.name else None


def read_obo(path: Path) -> Iterator[Term]:
    """The terms of an OBO file, obsolete ones left out.

    Raises:
        BadInput: No such file, not UTF-8 text, or no term in it.
    """
    _readable(path, "OBO file")
    found = False
    stanza: list[str] | None = None
    try:
        with path.open(encoding="utf-8") as stream:
            for line in chain(stream, ["[End]"]):
                line = line.rstrip("\n")
                if not line.startswith("["):
                    if stanza is not None:
                        stanza.append(line)
                    continue
                if stanza and (term := _obo_term(stanza)):
                    found = True
                    yield term
                stanza = [] if line.strip() == "[Term]" else None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text ({error}): is it an OBO file?") from error
    if not found:
        raise BadInput(f"{path} holds no [Term] with id and name: is it an OBO file?")


def _owl_id(reference: str | None) -> str | None:
    """`http://radlex.org/RID/RID1301` becomes RADLEX:RID1301, `.../HP_0001640` HP:0001640."""
    last = (reference or "").rpartition("#")[2].rpartition("/")[2]
    if re.fullmatch(r"RID\d+", last):
        return f"RADLEX:{last}"
    if match := re.fullmatch(r"([A-Za-z]+)_(\w+)", last):
        return f"{match[1]}:{match[2]}"
    return last or None


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _restriction(element: ElementTree.Element) -> tuple[str, str] | None:
    """(property, filler) of a `subClassOf` that holds a restriction."""
    kind = other = None
    for part in element.iter():
        if _local(part.tag) == "onProperty":
            kind = _kind(part.get(f"{_RDF}resource") or "")
        elif _local(part.tag) in ("someValuesFrom", "hasValue"):
            other = _owl_id(part.get(f"{_RDF}resource"))
    return (kind, other) if kind and other else None


def _owl_term(element: ElementTree.Element) -> Term | None:
    identity = _owl_id(element.get(f"{_RDF}about") or element.get(f"{_RDF}ID"))
    if identity is None:
        return None
    term = Term(identity, "")
    names: dict[str, str] = {}
    for part in element:
        tag, text = _local(part.tag), (part.text or "").strip()
        resource = _owl_id(part.get(f"{_RDF}resource"))
        foreign = not (part.get(_LANGUAGE) or "en").startswith("en")
        if tag == "deprecated" and text == "true":
            return None
        if tag == "subClassOf":
            relation = (IS_A, resource) if resource else _restriction(part)
            if relation:
                term.relations.append(relation)
        elif foreign:
            continue
        elif tag in _OWL_NAMES and text:
            names.setdefault(tag, text)
        elif tag in _OWL_SYNONYMS and text:
            term.synonyms.append(text)
        elif tag in _OWL_DEFINITIONS and text:
            term.definition = text
        elif resource and not text and tag not in ("type", "equivalentClass", "disjointWith"):
            term.relations.append((_kind(tag), resource))
    term.name = next((names[tag] for tag in _OWL_NAMES if tag in names), "")
    return _tidy(term) if term.name else None


def read_owl(path: Path) -> Iterator[Term]:
    """The named classes of an OWL file in RDF/XML (RadLex.owl), English names only.

    Raises:
        BadInput: No such file, no well-formed XML, XML entities, or no class in it.
    """
    _readable(path, "OWL file")
    found = False
    try:
        with path.open("rb") as stream:
            head = stream.read(1 << 16)
            # Ontology editors declare prefixes as plain entities; anything external is refused.
            if re.search(rb"<!ENTITY\s+%|<!ENTITY\s+\S+\s+(?:SYSTEM|PUBLIC)", head):
                raise BadInput(f"{path} refers to external XML entities: save it without them")
            stream.seek(0)
            depth, root = 0, None
            for event, element in ElementTree.iterparse(stream, events=("start", "end")):
                if event == "start":
                    root = element if root is None else root
                    depth += 1
                    continue
                depth -= 1
                if depth != 1 or root is None:
                    continue
                if _local(element.tag) in ("Class", "Description", "NamedIndividual") and (
                    term := _owl_term(element)
                ):
                    found = True
                    yield term
                root.clear()
    except ElementTree.ParseError as error:
        raise BadInput(f"{path} is no well-formed XML ({error}): is it OWL in RDF/XML?") from error
    if not found:
        raise BadInput(f"{path} holds no named class: is it OWL in RDF/XML?")


def _rf2_file(folder: Path, kind: str) -> Path:
    found = sorted(
        path
        for path in folder.rglob(f"sct2_{kind}_*.txt")
        if "Snapshot" in path.name and (kind != "Description" or "-en" in path.name)
    )
    if not found:
        raise BadInput(
            f"no sct2_{kind}_*Snapshot*.txt under {folder}: give the folder of an RF2 release "
            "with its Snapshot files"
        )
    return found[0]


def _rf2_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            header = next(rows, [])
            places = [header.index(name) for name in ("active", *columns)]
            for row in rows:
                if len(row) >= len(header) and row[places[0]] == "1":
                    yield tuple(row[place] for place in places[1:])
        except ValueError as error:
            raise BadInput(f"{path} lacks a column of RF2 ({error})") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInput(f"{path} cannot be read as RF2 ({error})") from error


def read_rf2(folder: Path) -> Iterator[Term]:
    """The active concepts of a SNOMED CT RF2 release (Snapshot), English names.

    The fully specified name without its semantic tag names a term; other descriptions are its
    synonyms; active relationships are kept, attribute kinds by the attribute's name.

    Raises:
        BadInput: No such folder, a file or column is missing, or no active concept.
    """
    if not folder.is_dir():
        raise BadInput(f"no folder at {folder}: give the folder of an RF2 release")
    concepts = _rf2_file(folder, "Concept")
    terms = {row[0]: Term(f"SNOMEDCT:{row[0]}", "") for row in _rf2_rows(concepts, ("id",))}
    columns = ("conceptId", "typeId", "term")
    for concept, kind, text in _rf2_rows(_rf2_file(folder, "Description"), columns):
        term = terms.get(concept)
        if term is None:
            continue
        if kind == SNOMED_FULL_NAME:
            term.name = re.sub(r" \([^()]*\)$", "", text)
        elif kind == SNOMED_SYNONYM:
            term.synonyms.append(text)
    columns = ("sourceId", "destinationId", "typeId")
    for source, other, kind in _rf2_rows(_rf2_file(folder, "Relationship"), columns):
        if source in terms and other in terms:
            named = terms[kind].name if kind in terms and terms[kind].name else "related to"
            relation = IS_A if kind == SNOMED_IS_A else _kind(named)
            terms[source].relations.append((relation, f"SNOMEDCT:{other}"))
    named_terms = [term for term in terms.values() if term.name]
    if not named_terms:
        raise BadInput(f"{folder} holds no active concept with a name: is it a whole release?")
    for term in named_terms:
        yield _tidy(term)


READERS: dict[str, Callable[[Path], Iterator[Term]]] = {
    "radlex": read_owl,
    "snomed": read_rf2,
    "obo": read_obo,
}

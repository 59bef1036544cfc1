"""From a specification to combinations ("cells") with quotas, and from a cell to its prompts.

A cell is one combination of modality, findings, side, severity, view, age and sex. Its id and its
prompts depend on that combination alone, so a reordered specification asks for the same images.
What the parser reads in the prompts is checked in `synthesis_checks`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product
from typing import TypeVar

from medgen.agents import parser
from medgen.errors import BadInput
from medgen.graphs.synthesis_spec import (
    MOST_CELLS,
    MOST_COMPARED,
    MOST_IMAGES,
    AgeRange,
    Entry,
    Fault,
    Source,
    Spec,
    refuse,
)
from medgen.knowledge.cards import FindingCard, finding_cards, modality_cards
from medgen.records import Request

T = TypeVar("T")
FIELDS = ("finding", "side", "severity", "view", "modality", "age", "sex", "patient")
EMPTY = re.compile(r"\s*,(?=\s*(,|$))")


@dataclass(frozen=True)
class Cell:
    """One combination, how many images of it are wanted, and how its prompts are worded.

    `line` is where the specification asks for it.
    """

    modality: str
    findings: tuple[str, ...]
    side: str | None
    severity: str | None
    view: str | None
    age: int | tuple[int, int] | None
    sex: str | None
    wanted: int
    templates: tuple[str, ...]
    line: int

    @property
    def key(self) -> str:
        """The combination as JSON."""
        told = (self.modality, self.findings, self.side, self.severity, self.view, self.age)
        return json.dumps([*told, self.sex])

    @property
    def id(self) -> str:
        """A name fit for files: words to read and a hash of the combination."""
        words = " ".join([self.modality, *self.findings]).lower()
        slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:48]
        return f"{slug}-{hashlib.sha256(self.key.encode()).hexdigest()[:8]}"

    def task_id(self, number: int) -> str:
        """The id of a cell's task, counted from 0."""
        return f"{self.id}-{number:06d}"

    def prompt(self, seed: int, number: int) -> str:
        """The prompt of a cell's task: its template in turn, its age drawn within the range."""
        age = self.age
        if isinstance(age, tuple):
            age = random.Random(f"{seed}/{self.task_id(number)}/age").randint(*age)
        return self.worded(self.templates[number % len(self.templates)], age)

    def worded(self, template: str, age: int | None) -> str:
        """A template filled in; what was not asked for leaves no trace."""
        patient = " ".join(filter(None, (f"{age}-year-old" if age is not None else "", self.sex)))
        values = {
            "finding": " and ".join(self.findings),
            "side": self.side or "",
            "severity": self.severity or "",
            "view": self.view or "",
            "modality": self.modality,
            "age": "" if age is None else str(age),
            "sex": self.sex or "",
            "patient": patient,
        }
        text = EMPTY.sub("", template.format(**values))
        return re.sub(r"\s+", " ", text).strip(" ,")

    def samples(self) -> Iterator[str]:
        """One prompt of every template and end of the age range, to be checked."""
        for template in self.templates:
            for age in self.age if isinstance(self.age, tuple) else (self.age,):
                yield self.worded(template, age)


def expand(source: Source) -> list[Cell]:
    """All cells of a specification, in its order.

    Raises:
        BadInput: Unknown names, impossible counts, a combination asked for twice, too much.
    """
    faults: list[Fault] = []
    cells: dict[str, Cell] = {}
    total = sum(entry.count or 0 for entry in source.spec.images)
    for index, entry in enumerate(source.spec.images):
        found = list(_faults(source, index, entry))
        faults += found
        if found:
            continue
        for cell in _cells(source, index, entry, faults):
            if cell.key in cells:
                asked = f"line {cells[cell.key].line} asks for {_name(cell)} already"
                faults.append(Fault(cell.line, f"{asked}: ask for it once"))
            cells[cell.key] = cell
            total += cell.wanted if entry.each else 0
    pool = source.spec.diversity.pool
    for cell in cells.values():
        if pool > 1 and cell.wanted * pool > MOST_COMPARED:
            text = f"{cell.wanted:,} images of one combination: with diversity.pool every image is"
            limit = f"compared with every other, up to {MOST_COMPARED:,}; leave the pool out"
            faults.append(Fault(cell.line, f"{text} {limit}"))
    if total > MOST_IMAGES:
        line = source.line("images")
        text = f"asks for {total:,} images, over the limit of {MOST_IMAGES:,}: make several sets"
        faults.insert(0, Fault(line, text))
    if faults:
        raise refuse(source.path, faults)
    return list(cells.values())


def _name(cell: Cell) -> str:
    return " ".join(filter(None, (cell.severity, cell.side, *cell.findings, cell.view, cell.sex)))


def _faults(source: Source, index: int, entry: Entry) -> Iterator[Fault]:
    known = {card.name.lower(): card.name for card in modality_cards().values()}
    if entry.modality.lower() not in known:
        yield Fault(
            source.line("images", index, "modality"),
            _unknown("modality", entry.modality, list(known.values())),
        )
        return
    cards = finding_cards().get(known[entry.modality.lower()], {})
    for place, findings in enumerate(entry.findings):
        for name in [findings] if isinstance(findings, str) else findings:
            if name not in cards:
                yield Fault(
                    source.line("images", index, "findings", place),
                    _unknown(f"{entry.modality} finding", name, list(cards)),
                )
    for place, template in enumerate([*entry.templates, *source.spec.templates]):
        own = place < len(entry.templates)
        where = ("images", index, "templates", place) if own else ("templates",)
        try:
            named = [name for _, name, _, _ in string.Formatter().parse(template) if name]
        except ValueError as error:
            yield Fault(source.line(*where), f"template {template!r}: {error}")
            continue
        for name in named:
            if name not in FIELDS:
                yield Fault(source.line(*where), _unknown("template field", name, list(FIELDS)))


def _unknown(kind: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1, 0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known[:12])}"
    return f"unknown {kind} {name!r}: {hint}"


def _cells(source: Source, index: int, entry: Entry, faults: list[Fault]) -> list[Cell]:
    spec, modality = source.spec, modality_cards()
    name = next(one for one in modality if one.lower() == entry.modality.lower())
    findings = [(one,) if isinstance(one, str) else tuple(one) for one in entry.findings]
    ages = [(one.low, one.high) if isinstance(one, AgeRange) else one for one in entry.age]
    line = source.line("images", index)
    size = len(findings)
    for axis in (entry.side, entry.severity, entry.view, ages, entry.sex):
        size *= max(1, len(axis))
    if size > MOST_CELLS:
        faults.append(Fault(line, f"{size:,} combinations, over the limit of {MOST_CELLS:,}"))
        return []
    templates = tuple(entry.templates or spec.templates)
    cells = []
    combinations = product(
        findings,
        _axis(entry.side),
        _axis(entry.severity),
        _axis(entry.view),
        _axis(ages),
        _axis(entry.sex),
    )
    for said, side, severity, view, age, sex in combinations:
        where = source.line("images", index, "findings", entry.findings.index(_as_given(said)))
        cells.append(
            Cell(name, said, side, severity, view, age, sex, entry.each or 0, templates, where)
        )
    share = spec.negatives if entry.negatives is None else entry.negatives
    shown = len(cells)
    if share:
        cells += _negatives(cells, modality_normal(name), line)
    if entry.count is None:
        extra = round((entry.each or 0) * shown * share / (1 - share)) if share else 0
        return cells[:shown] + _spread(cells[shown:], extra, line, faults)
    negatives = round(entry.count * share)
    return _spread(cells[:shown], entry.count - negatives, line, faults) + _spread(
        cells[shown:], negatives, line, faults
    )


def _axis(values: Sequence[T]) -> Sequence[T | None]:
    """The values of one list, or none at all where the list is empty."""
    return values or [None]


def _as_given(said: tuple[str, ...]) -> str | list[str]:
    return said[0] if len(said) == 1 else list(said)


def _negatives(cells: list[Cell], normal: str, line: int) -> list[Cell]:
    plain = [
        replace(cell, findings=(normal,), side=None, severity=None, line=line) for cell in cells
    ]
    return list({cell.key: cell for cell in plain}.values())


def _spread(cells: list[Cell], count: int, line: int, faults: list[Fault]) -> list[Cell]:
    """So many images spread evenly over cells, the first ones having one more."""
    if cells and 0 < count < len(cells):
        text = f"{count} images cannot be spread over {len(cells)} combinations: ask for more"
        faults.append(Fault(line, text))
    if not cells or count < len(cells):
        return []
    least, more = divmod(count, len(cells))
    return [replace(cell, wanted=least + (i < more)) for i, cell in enumerate(cells)]


def modality_normal(modality: str) -> str:
    """The finding that a normal image of a modality shows, one that captions have words for.

    Raises:
        BadInput: The modality has no such finding.
    """
    cards = finding_cards().get(modality, {})
    try:
        named = parser.parse(Request(prompt=f"normal {modality}")).findings
    except BadInput:
        named = []
    first = [cards[one.finding] for one in named if one.finding in cards]
    captioned: list[FindingCard] = [card for card in cards.values() if card.kind == "normal"]
    for card in (*first, *captioned):
        if card.captioned:
            return card.name
    raise BadInput(f"{modality} has no normal finding: leave 'negatives' out")


def task_seed(seed: int, task: str) -> int:
    """The seed of a task, in [0, 2**63): from the dataset's seed and the task's id alone."""
    digest = hashlib.sha256(f"{seed}/{task}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draws_control(spec: Spec, task: str) -> bool:
    """Whether a task also draws the control, so that the share of `control_share` does."""
    digest = hashlib.sha256(f"control/{spec.seed}/{task}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < spec.control_share * 2**32

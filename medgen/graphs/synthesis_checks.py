"""Are the prompts understood as they are meant? Says on which line they are not, before any work.

Every prompt of a table and every wording of a cell goes through the same parser that the agent
uses. A prompt that is read as something else would fill a quota with the wrong images; a finding
that no check measures could never be accepted, so its quota could never be met.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from medgen.agents import parser
from medgen.errors import BadInput
from medgen.graphs.plan import request_of
from medgen.graphs.synthesis_cells import Cell
from medgen.graphs.synthesis_spec import MOST_IMAGES, Fault, Source, refuse
from medgen.records import AgeGroup, Plan

WAYS_OUT = "its images could never be accepted; leave it out, or set thresholds.unmeasured to keep"
LOST = re.compile(r"is ignored|not understood|left out")
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
COLUMNS = ("id", "prompt", "modality")
LONGEST_PROMPT = 4000


class Measurable(Protocol):
    """Whether a check can settle a modality's finding on films of a population, None for any."""

    def __call__(self, modality: str, finding: str, population: AgeGroup | None = None, /) -> bool:
        """True where a verdict is possible."""


@dataclass
class Checked:
    """What was found: how often each warning of the parser was given, and modalities by images."""

    warnings: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    prompts: int = 0

    def note(self, plan: Plan) -> None:
        """Count the warnings of one prompt."""
        self.prompts += 1
        self.warnings.update(set(plan.warnings))


@dataclass(frozen=True)
class Asked:
    """One row of a table of prompts."""

    id: str
    prompt: str
    modality: str | None


def check_cells(source: Source, cells: Sequence[Cell], measurable: Measurable) -> Checked:
    """Read every wording of every cell.

    Args:
        source: Where the cells come from.
        cells: All of them.
        measurable: Whether a check measures a modality's finding.

    Raises:
        BadInput: A wording is not understood as the cell means it, or nothing measures a cell.
    """
    checked, faults = Checked(), []
    for cell in cells:
        checked.modalities[cell.modality] += cell.wanted
        plans = []
        for prompt in dict.fromkeys(cell.samples()):
            try:
                plan = parser.parse(request_of(prompt, cell.modality))
            except BadInput as error:
                faults.append(Fault(cell.line, f"{prompt!r}: {error}"))
                continue
            plans.append(plan)
            checked.note(plan)
            faults += [Fault(cell.line, f"{prompt!r}: {one}") for one in _misread(cell, plan)]
        groups = {plan.age_group for plan in plans} or {None}
        if not any(
            measurable(cell.modality, one, group) for one in cell.findings for group in groups
        ):
            unverified = f"nothing measures {' and '.join(cell.findings)} in {cell.modality}"
            if source.spec.thresholds.unmeasured == "reject":
                faults.append(Fault(cell.line, f"{unverified}: {WAYS_OUT}"))
            else:
                checked.warnings[f"{unverified}: its images are kept unverified"] += 1
    if faults:
        raise refuse(source.path, faults)
    return checked


def _misread(cell: Cell, plan: Plan) -> Iterator[str]:
    lost = [warning for warning in plan.warnings if LOST.search(warning)]
    if lost:
        yield lost[0]
        return
    read = {one.finding for one in plan.findings if one.status == "present"}
    read |= {f"no {one.finding}" for one in plan.findings if one.status == "absent"}
    if read != set(cell.findings):
        yield f"is read as {', '.join(sorted(read)) or 'nothing'}, not {', '.join(cell.findings)}"
        return
    for name in ("side", "severity"):
        wanted = getattr(cell, name)
        if wanted and wanted not in {getattr(finding, name) for finding in plan.findings}:
            yield f"the {name} {wanted!r} is not read from it"
    for name in ("view", "sex"):
        wanted = getattr(cell, name)
        if wanted and getattr(plan, name) != wanted:
            yield f"the {name} {wanted!r} is not read from it"
    if cell.age is not None and plan.age is None:
        yield "the age is not read from it"


def measured_by(panel: object) -> Measurable:
    """What a panel can settle; everything, where the panel does not say."""
    decides = getattr(panel, "decides", None)

    def measurable(modality: str, finding: str, population: AgeGroup | None = None) -> bool:
        return decides is None or bool(decides(modality, finding, population))

    return measurable


def read_table(source: Source, path: Path) -> Iterator[Asked]:
    """The rows of a table of prompts.

    Raises:
        BadInput: No CSV, other columns, an id that is no file name or comes twice; with its line.
    """
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.DictReader(stream, strict=True)
            columns = lines.fieldnames or []
            unknown = [name for name in columns if name not in COLUMNS]
            lacking = [name for name in COLUMNS[:2] if name not in columns]
            if unknown or lacking:
                told = f"unknown column {unknown[0]!r}" if unknown else f"no column {lacking[0]!r}"
                raise refuse(path, [Fault(1, f"{told}: give id,prompt and perhaps modality")])
            for line in lines:
                said = _row_faults(line, seen, lines.line_num)
                faults += [Fault(lines.line_num, text) for text in said]
                if len(seen) > MOST_IMAGES:
                    raise refuse(path, [Fault(lines.line_num, f"over {MOST_IMAGES:,} prompts")])
                if not said:
                    yield Asked(line["id"], line["prompt"].strip(), line.get("modality") or None)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise BadInput(f"{path} cannot be read ({error}): give a CSV in UTF-8") from error
    if faults:
        raise refuse(path, faults)
    if not seen:
        raise refuse(path, [Fault(1, "no prompts: give a row an image")])


def _row_faults(line: dict[str, str], seen: dict[str, int], number: int) -> list[str]:
    name, prompt = line.get("id") or "", line.get("prompt") or ""
    if None in line or None in line.values():
        return ["another number of cells than the header: quote commas"]
    if not SAFE_ID.fullmatch(name):
        return [f"id {name[:40]!r} is no file name: use letters, digits, dot, dash, underscore"]
    if name in seen:
        return [f"id {name!r} was given on line {seen[name]} already: ids are unique"]
    seen[name] = number
    if not prompt.strip() or len(prompt) > LONGEST_PROMPT:
        return [f"id {name!r}: the prompt is {'empty' if not prompt.strip() else 'too long'}"]
    return []


def check_table(
    source: Source,
    path: Path,
    measurable: Measurable,
    on_row: Callable[[int], None] = lambda _rows: None,
) -> Checked:
    """Read every prompt of a table.

    Args:
        source: Where the table is named.
        path: The CSV.
        measurable: Whether a check measures a modality's finding.
        on_row: Told how many rows were read.

    Raises:
        BadInput: A row cannot be used, or its prompt is not understood; says which lines.
    """
    checked, faults = Checked(), []
    known: dict[tuple[str, str | None], Plan | str] = {}
    for number, asked in enumerate(read_table(source, path), 1):
        key = (asked.prompt, asked.modality)
        if key not in known:
            try:
                known[key] = parser.parse(request_of(*key))
            except BadInput as error:
                known[key] = str(error)
        plan = known[key]
        if isinstance(plan, str):
            # A prompt may hold line breaks: the row is told by its id, not by a line.
            faults.append(Fault(number + 1, f"id {asked.id!r}: {plan}"))
        else:
            checked.note(plan)
            checked.modalities[plan.modality] += 1
            asked_for = [one.finding for one in plan.findings]
            if not any(measurable(plan.modality, one, plan.age_group) for one in asked_for):
                checked.warnings[f"nothing measures {', '.join(asked_for)}"] += 1
        on_row(number)
    if faults:
        raise refuse(path, faults)
    return checked

"""The reasoning without the drawing: one request, or a table of them, row by row and in order.

Runs the reasoning nodes one after another, the same that the graph runs before it draws. Knows
tables of text; knows no generator, no panel and no run folder.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from medgen.agents.parser import LONGEST_REPORT
from medgen.agents.state import AgentState
from medgen.errors import BadInput
from medgen.graphs import nodes
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.records import Plan, PlanLine, Reading, Request

Node = Callable[[AgentState, Collaborators], nodes.Step]

REASONING: tuple[Node, ...] = (
    nodes.parse,
    nodes.localize_anatomy,
    nodes.assess_pathology,
    nodes.retrieve,
    nodes.map_features,
    nodes.write_report,
)
MODALITY_COLUMNS = ("modality", "modal")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_LONGEST_CELL = 4 * LONGEST_REPORT


def request_of(prompt: str, modality: str | None, **budget: Any) -> Request:
    """A request, checked.

    Raises:
        BadInput: Half a character (a lone surrogate) or a field out of its range.
    """
    try:
        request = Request(prompt=prompt, modality=modality, **budget)
        request.model_dump_json()
        return request
    except PydanticSerializationError as error:
        raise BadInput("the prompt holds half a character (a lone surrogate): remove it") from error
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        raise BadInput(f"{field} cannot be used ({fault['msg']}): correct it") from error


def reason(
    request: Request, collaborators: Collaborators | None = None, *, retrieve: bool = True
) -> Plan:
    """The finished plan of one request; draws and writes nothing.

    Args:
        request: What was asked; its budget is not used.
        collaborators: Of these, only the knowledge store and the case index are used.
        retrieve: Look facts and cases up; without them the plan cites nothing.

    Raises:
        BadInput: The request cannot be understood.
    """
    minds = collaborators or shared_collaborators()
    state: dict[str, Any] = {"request": request.model_dump(mode="json"), "folder": "", "facts": []}
    for node in REASONING:
        if node is not nodes.retrieve or retrieve:
            with minds.turn:
                state.update(node(cast("AgentState", state), minds).update)
    return Plan.model_validate(state["plan"])


@dataclass(frozen=True)
class Table:
    """A table of text on disk.

    Attributes:
        path: CSV or TSV with a header, or JSON lines; UTF-8.
        columns: The columns that hold the text; several are joined, each under its name as a
            heading ("findings: ...").
        id_column: The column that names a row; rows are counted from 1 without it.
    """

    path: Path
    columns: tuple[str, ...]
    id_column: str | None = None

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows in order, checked against the columns.

        Raises:
            BadInput: No such file, format or column, no rows, or a line that cannot be read.
        """
        if not self.path.is_file():
            raise BadInput(f"no table at {self.path}: check the path")
        kind = self.path.suffix.lower()
        if kind not in (*_DELIMITERS, ".jsonl"):
            raise BadInput(f"{self.path} is no table of a known kind: give .csv, .tsv or .jsonl")
        known = False
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as stream:
                read = _json_rows if kind == ".jsonl" else _delimited_rows
                for row in read(stream, _DELIMITERS.get(kind, "")):
                    if not known:
                        self._check(row)
                        known = True
                    yield row
        except RecursionError as error:
            raise BadInput(f"{self.path} nests too deeply: give one flat object a line") from error
        except (OSError, ValueError, csv.Error) as error:
            raise BadInput(f"{self.path} cannot be read ({error}): correct the file") from error
        if not known:
            raise BadInput(f"{self.path} has no rows: give a header line and a row a text")

    def _check(self, row: Mapping[str, Any]) -> None:
        for column in (*self.columns, *filter(None, [self.id_column])):
            if column not in row:
                held = ", ".join(str(name) for name in row if name is not None)
                raise BadInput(f"{self.path} has no column {column!r}: it has {held}")

    def text(self, row: Mapping[str, Any]) -> str:
        """The text of a row."""
        cells = [(name, str(row.get(name) or "").strip()) for name in self.columns]
        if len(cells) == 1:
            return cells[0][1]
        return "\n".join(f"{name}: {cell}" for name, cell in cells if cell)


def _delimited_rows(stream: Any, delimiter: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(min(_LONGEST_CELL, sys.maxsize))
    return iter(csv.DictReader(stream, delimiter=delimiter))


def _json_rows(stream: Any, _: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise BadInput(f"line {number} is no JSON object: give one object a line")
            yield row


def plan_line(
    prompt: str,
    modality: str | None = None,
    *,
    id: str = "1",
    reading: Reading | None = None,
    retrieve: bool = True,
    collaborators: Collaborators | None = None,
) -> PlanLine:
    """One request's plan as the command prints it.

    Args:
        prompt: A request or a whole report.
        modality: Over the one in the prompt.
        id: What to call it.
        reading: As a request or as a report; by the look of the text when None.
        retrieve: Look facts and cases up, and cite them.
        collaborators: The caller's own; this process's shared ones when None.

    Raises:
        BadInput: The prompt cannot be understood.
    """
    request = request_of(prompt, modality, reading=reading)
    plan = reason(request, collaborators, retrieve=retrieve)
    return PlanLine(id=id, **dict(plan))


def plan_table(
    table: Table,
    modality: str | None = None,
    *,
    reading: Reading | None = None,
    retrieve: bool = False,
    collaborators: Collaborators | None = None,
) -> Iterator[PlanLine]:
    """One line a row, in order, as they are read.

    A row that cannot be planned (empty, not understood, contradictory) is a line too: it has an
    `error` and no findings. Without `modality` a column "modality" or "modal" is used, if there
    is one, and else what the texts say.

    Args:
        table: Where the texts are.
        modality: Of all rows.
        reading: As requests or as reports; each by its look when None.
        retrieve: Look facts and cases up for each row, at some ten times the cost of the rest.
        collaborators: The caller's own; this process's shared ones when None.

    Raises:
        BadInput: The table cannot be read.
    """
    for number, row in enumerate(table.rows(), 1):
        said = "" if table.id_column is None else row.get(table.id_column)
        name = _printable(str(number) if said in (None, "") else str(said))
        given = modality or _own_modality(row)
        text = table.text(row)
        try:
            yield plan_line(
                text,
                given,
                id=name,
                reading=reading,
                retrieve=retrieve,
                collaborators=collaborators,
            )
        except BadInput as error:
            shown = _printable(given or "")
            why = _printable(str(error))
            yield PlanLine(id=name, prompt=_printable(text), modality=shown, error=why)


def _printable(text: str) -> str:
    """A text with half characters (lone surrogates, which JSON can spell) as question marks."""
    return text.encode(errors="replace").decode()


def _own_modality(row: Mapping[str, Any]) -> str | None:
    said: Sequence[Any] = [row[name] for name in MODALITY_COLUMNS if row.get(name)]
    return str(said[0]) if said else None

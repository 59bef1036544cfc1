"""What a dataset shall hold: the specification as records, read from YAML or a table of prompts.

Its JSON schema (`schema()`) is published in docs/reference/synthesis.schema.json. Checks what can
be checked entry by entry; what the words mean to the parser is checked in `synthesis_cells`.
"""

# ruff: noqa: RUF012 - pydantic copies a record's default lists.

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from medgen.errors import BadInput
from medgen.graphs.synthesis_lines import Lines
from medgen.records import Record, Severity, Sex, Side, View

MOST_IMAGES = 20_000_000
MOST_CELLS = 100_000
MOST_COMPARED = 5_000
LISTED = 3
CHANGES_NO_IMAGE = ("hours", "timeout", "core_hour")
SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"
DEFAULT_TEMPLATE = "{severity} {side} {finding}, {view} {modality}, {patient}"

Age = Annotated[int, Field(ge=0, le=120)]
Names = Annotated[list[str], Field(min_length=1)]


class AgeRange(Record):
    """Ages in years, ends included; each image draws its own."""

    low: Age = Field(alias="from")
    high: Age = Field(alias="to")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("'from' comes before 'to'")
        return self


class Entry(Record):
    """Images of one modality: every combination of what the lists hold.

    `count` images are spread evenly over the combinations, `each` images are made of every one.
    A finding is a canonical name, or a list of names for several in one image. Of `count`, the
    share `negatives` shows the modality's normal finding instead.
    """

    modality: str
    count: int | None = Field(default=None, ge=1)
    each: int | None = Field(default=None, ge=1)
    findings: list[str | Names] = Field(min_length=1)
    side: list[Side] = []
    severity: list[Severity] = []
    view: list[View] = []
    age: list[Age | AgeRange] = []
    sex: list[Sex] = []
    negatives: float | None = Field(default=None, ge=0, lt=1)
    templates: list[str] = []

    @model_validator(mode="after")
    def _counted_once(self) -> Self:
        if (self.count is None) == (self.each is None):
            raise ValueError("give either 'count' (in all) or 'each' (of every combination)")
        return self


class Thresholds(Record):
    """What an image needs beside the verifier's acceptance; null and 0 ask for nothing more.

    `score`, `quality` and `confidence` (of every confirmed finding) are least values, 0-1;
    `nearest_percentile` is the least share in percent of real held-out images that lie nearer to
    their nearest training image. With `unmeasured: keep`, an image of the right modality and
    quality is kept although no check can measure anything that was asked; its `accepted` is null.
    """

    score: float = Field(default=0, ge=0, le=1)
    quality: float = Field(default=0, ge=0, le=1)
    confidence: float = Field(default=0, ge=0, le=1)
    nearest_percentile: float | None = Field(default=None, ge=0, le=100)
    unmeasured: Literal["reject", "keep"] = "reject"


class Budget(Record):
    """How much may be spent.

    `rounds` and `candidates` (a round) are those of one task, which is one agent run for one
    image; `tasks_an_image` how many tasks may be started for each image wanted, `hours` how long
    the whole run may take. `timeout` is in seconds for one drawing batch; a task that fails is
    tried `retries` times more, alone, then set aside. `core_hour` is a price, for the estimate.
    """

    rounds: int = Field(default=3, ge=1, le=20)
    candidates: int = Field(default=2, ge=1, le=64)
    tasks_an_image: float = Field(default=3, ge=1, le=100)
    hours: float | None = Field(default=None, gt=0)
    timeout: float = Field(default=900, gt=0)
    retries: int = Field(default=2, ge=0, le=20)
    core_hour: float | None = Field(default=None, ge=0)


class Diversity(Record):
    """Which of the accepted images are kept.

    `near_copies` turns down an accepted image that is as near to another one of the same
    combination as copies are; `pool` times as many images as wanted are made, and the most alike
    are left out.
    """

    near_copies: bool = True
    pool: float = Field(default=1, ge=1, le=10)


class Spec(Record):
    """A dataset to make: `images` by count, or a `table` (CSV: id,prompt,modality).

    `control_share` is the share of tasks that also draw the prompt as typed, unrefined, with the
    same noise, which shows what the reasoning gains. `steps` and `guidance` are the generator's
    own when null; `templates` word the prompts of entries without templates of their own.
    """

    name: str = Field(default="dataset", pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,79}$")
    seed: int = Field(default=0, ge=0, lt=2**32)
    images: list[Entry] = []
    table: str | None = None
    templates: list[str] = Field(default=[DEFAULT_TEMPLATE], min_length=1)
    negatives: float = Field(default=0, ge=0, lt=1)
    control_share: float = Field(default=1, ge=0, le=1)
    steps: int | None = Field(default=None, ge=2, le=1000)
    guidance: float | None = Field(default=None, ge=1, le=30)
    thresholds: Thresholds = Thresholds()
    budget: Budget = Budget()
    diversity: Diversity = Diversity()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.images) == (self.table is not None):
            raise ValueError("give either 'images' (by count) or 'table' (a CSV of prompts)")
        return self


@dataclass(frozen=True)
class Fault:
    """Something wrong with a specification: on which line, and what."""

    line: int
    text: str


def refuse(path: Path, faults: Sequence[Fault]) -> BadInput:
    """The error that lists the first faults, in one line."""
    first, *more = sorted(faults, key=lambda fault: fault.line)
    others = "; ".join(f"line {fault.line}: {fault.text}" for fault in more[: LISTED - 1])
    rest = len(faults) - LISTED
    ending = (f"; {others}" if others else "") + (f"; and {rest} more" if rest > 0 else "")
    return BadInput(f"{path}:{first.line}: {first.text}{ending}")


class Source:
    """A specification with where it came from; `table` is its CSV of prompts, if it has one.

    Args:
        path: A YAML specification, or a CSV of prompts.
        seed: Over the specification's.

    Raises:
        BadInput: It cannot be read or does not fit the schema; says which lines.
    """

    def __init__(self, path: str | Path, seed: int | None = None) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise BadInput(f"no specification at {self.path}: check the path")
        self.lines: Lines | None = None
        self.table: Path | None = None
        if self.path.suffix.lower() == ".csv":
            self.spec = Spec(table=self.path.name, name="dataset")
        elif self.path.suffix.lower() in (".yaml", ".yml"):
            self.lines = Lines(self.path)
            self.spec = _parsed(self.lines)
        else:
            raise BadInput(f"{self.path} is no specification: give .yaml, or .csv of prompts")
        if seed is not None:
            self.spec = self.spec.model_copy(update={"seed": seed})
        if self.spec.table is not None:
            self.table = self.path.parent / self.spec.table
            if not self.table.is_file():
                raise refuse(self.path, [Fault(self.line("table"), f"no table at {self.table}")])

    def line(self, *place: str | int) -> int:
        """The line of an entry, 1 where there are none."""
        return self.lines.line(place) if self.lines else 1

    @property
    def sha256(self) -> str:
        """Hash of the specification as resolved, with the table's own; 64 hex digits.

        What changes no image is not in it, so that a run may be gone on with for more hours.
        """
        told = self.spec.model_dump(mode="json", by_alias=True)
        told["budget"] = {k: v for k, v in told["budget"].items() if k not in CHANGES_NO_IMAGE}
        if self.table is not None:
            told["table"] = hashlib.sha256(self.table.read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def resolved(spec: Spec) -> str:
    """The specification as YAML with every default written out; a table is called prompts.csv."""
    told = spec.model_dump(mode="json", by_alias=True)
    if spec.table is not None:
        told["table"] = "prompts.csv"
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100)


def _parsed(lines: Lines) -> Spec:
    if not isinstance(lines.values, dict):
        raise refuse(lines.path, [Fault(1, "no specification: give keys such as 'images'")])
    try:
        return Spec.model_validate(lines.values)
    except ValidationError as error:
        faults: dict[tuple[int, str], Fault] = {}
        # A misspelt key explains a missing one; of the members of a union, the one that fits best
        # says what is wrong with a value.
        order = ("extra_forbidden", "value_error")
        for one in sorted(error.errors(), key=lambda one: (*order, one["type"]).index(one["type"])):
            place = _in_file(one["loc"])
            name = ".".join(str(part) for part in place) or "the specification"
            fault = Fault(lines.line(place), f"{name}: {_said(one)}")
            faults.setdefault((fault.line, name), fault)
        raise refuse(lines.path, list(faults.values())) from error


def _in_file(place: Sequence[str | int]) -> tuple[str | int, ...]:
    """A pydantic location without the names of union members, which the file does not have."""
    members = ("str", "AgeRange", "constrained-int", "int")
    return tuple(p for p in place if not (isinstance(p, str) and (p in members or "[" in p)))


def _said(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "unknown key: see `medgen synthesize --schema`"
    said = str(fault["msg"]).removeprefix("Value error, ")
    given = fault.get("input")
    return f"{said}, not {given!r}" if isinstance(given, str | int | float) else said


def schema() -> dict[str, Any]:
    """The JSON schema of a YAML specification."""
    told = Spec.model_json_schema(by_alias=True)
    return {"$schema": SCHEMA_URL, "title": "medgen dataset specification", **told}

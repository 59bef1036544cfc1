"""The manifest of a dataset: one row an image, accepted and rejected, as Parquet and as CSV.

`manifest.parquet` and `manifest.csv` hold the same columns in the same order; lists and records
are JSON strings in both. No time and no absolute path is in a row, and writing is deterministic,
so the same rows give the same bytes. Knows files and columns; knows no engine and no image.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from medgen.errors import BadInput
from medgen.records import Finding, Plan, Quality, Record

PARQUET = "manifest.parquet"
TABLE = "manifest.csv"
ROWS_A_GROUP = 4096


class Row(Record):
    """One image of a dataset, with all that is known of it.

    Attributes:
        id: The task's; every candidate of a task has it.
        attempt: Which candidate of the task, from 1 in the order drawn.
        path: Of the image within the dataset's folder, POSIX.
        accepted: The verifier's word as in `Critique.accepted`: true, false, or null where nothing
            that was asked could be measured.
        reasons: Why the image is not one of the dataset's (`images/`) but one of the rejected,
            one line each; empty for those that are kept. An image that nothing could measure is
            kept only where the specification said so.
        modality: A modality card's name.
        prompt: The source prompt, which the image was verified against.
        drawn_prompt: What the generator was told.
        label: Canonical names of the findings asked for as present, joined by "; ", or "normal".
        findings: As asked and measured.
        codes: Codes of the findings that `label` names, those that have one.
        plan: What was concluded from the prompt.
        side: Of the labelled findings, joined by "; "; null where none has one.
        severity: Likewise.
        view: Projection, null where none was asked.
        age: Years.
        sex: As asked.
        quality: Technical quality as measured.
        nearest_distance: To the nearest training image (0-2).
        nearest_percentile: Share in percent of real held-out images that lie nearer to one.
        score: The verifier's, 0-1, higher is better.
        control_score: That of the task's control, the source prompt drawn unrefined.
        seed: Of the image's noise.
        steps: Sampling steps.
        guidance: Classifier-free guidance scale.
        rounds: Rounds that the task took.
        generator: Hash of the weights that drew it.
        verifier: Hash of the weights and rules that verified it.
        adapter: Lineage id of a fine-tuned adapter, null for none.
        sha256: Of the file's bytes.
        width: Pixels.
        height: Pixels.
        synthetic: Always true.
        group: Images of one group belong in one split.
    """

    id: str
    attempt: int = Field(ge=1)
    path: str
    accepted: bool | None
    reasons: list[str] = Field(default=[])
    modality: str
    prompt: str
    drawn_prompt: str
    label: str
    findings: list[Finding] = Field(default=[])
    codes: list[str] = Field(default=[])
    plan: Plan
    side: str | None = None
    severity: str | None = None
    view: str | None = None
    age: float | None = None
    sex: str | None = None
    quality: Quality | None = None
    nearest_distance: float | None = None
    nearest_percentile: float | None = None
    score: float
    control_score: float | None = None
    seed: int
    steps: int
    guidance: float
    rounds: int
    generator: str
    verifier: str
    adapter: str | None = None
    sha256: str
    width: int
    height: int
    synthetic: bool = True
    group: str

    @property
    def kept(self) -> bool:
        """Whether it is one of the dataset's images, not one of the rejected."""
        return self.accepted is not False and not self.reasons


COLUMNS = tuple(Row.model_fields)
JSON_COLUMNS = ("reasons", "findings", "codes", "plan", "quality")
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _kind(column: str) -> pa.DataType:
    if column in JSON_COLUMNS:
        return pa.string()
    annotation = Row.model_fields[column].annotation
    kinds = get_args(annotation) or (annotation,)
    return next(_ARROW[kind] for kind in kinds if kind in _ARROW)


SCHEMA = pa.schema([pa.field(column, _kind(column)) for column in COLUMNS])


def cells(row: Row) -> dict[str, Any]:
    """A row as plain values, lists and records as JSON strings; null stays null."""
    values = row.model_dump(mode="json")
    for column in JSON_COLUMNS:
        if values[column] is not None:
            values[column] = json.dumps(
                values[column], ensure_ascii=False, sort_keys=True, separators=(",", ":")
            )
    return values


def row_of(values: dict[str, Any]) -> Row:
    """A row from plain values.

    Raises:
        ValueError: They are no row.
    """
    told = dict(values)
    for column in JSON_COLUMNS:
        if isinstance(told.get(column), str):
            told[column] = json.loads(told[column])
    return Row.model_validate(told)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_manifest(folder: str | Path, rows: Iterable[Row]) -> int:
    """Write both files, whole or not at all; memory stays flat however many rows there are.

    Args:
        folder: The dataset's, there already.
        rows: Sorted by id, then attempt.

    Returns:
        How many rows were written.

    Raises:
        ValueError: The rows are not in order, or one comes twice.
        OSError: The files cannot be written.
    """
    folder, count = Path(folder), 0
    remaining, before = iter(rows), ("", 0)
    with (
        _replacing(folder / PARQUET) as parquet,
        _replacing(folder / TABLE) as table,
        table.open("w", encoding="utf-8", newline="") as stream,
        pq.ParquetWriter(parquet, SCHEMA, compression="zstd") as writer,
    ):
        lines = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        lines.writeheader()
        while chunk := list(islice(remaining, ROWS_A_GROUP)):
            for row in chunk:
                if (row.id, row.attempt) <= before:
                    raise ValueError(f"row {row.id} {row.attempt} comes after {before}")
                before = (row.id, row.attempt)
            values = [cells(row) for row in chunk]
            writer.write_table(pa.Table.from_pylist(values, schema=SCHEMA))
            lines.writerows({name: _cell(value) for name, value in one.items()} for one in values)
            count += len(chunk)
    return count


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def manifest_path(folder: str | Path) -> Path:
    """The manifest of a dataset's folder, or the file that was given itself.

    Raises:
        BadInput: There is none.
    """
    folder = Path(folder)
    for path in (folder, folder / PARQUET, folder / TABLE):
        if path.is_file():
            return path
    raise BadInput(f"no dataset in {folder} ({PARQUET} is missing): give a folder of one")


def read_manifest(folder: str | Path, columns: Sequence[str] = COLUMNS) -> Iterator[dict[str, Any]]:
    """The manifest's rows as plain values, JSON columns as strings, a chunk in memory at a time.

    Args:
        folder: A dataset's folder (its Parquet is read, else its CSV), or either file.
        columns: Those that are wanted.

    Raises:
        BadInput: There is no manifest, or it cannot be read.
    """
    path = manifest_path(folder)
    try:
        if path.suffix == ".csv":
            yield from _read_csv(path, columns)
            return
        with pq.ParquetFile(path) as stored:
            for batch in stored.iter_batches(ROWS_A_GROUP, columns=list(columns)):
                yield from batch.to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException, csv.Error) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be read ({reason}): run with --resume again") from error


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(16 << 20)
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            yield {column: _value(column, line[column]) for column in columns}


def _value(column: str, text: str) -> Any:
    field, kind = Row.model_fields[column], SCHEMA.field(column).type
    if text == "" and type(None) in get_args(field.annotation):
        return None
    if kind == pa.bool_():
        return text == "true"
    if kind == pa.int64():
        return int(text)
    return float(text) if kind == pa.float64() else text


def read_rows(folder: str | Path) -> Iterator[Row]:
    """The manifest's rows as records.

    Raises:
        BadInput: There is no manifest, or it cannot be read.
    """
    for number, values in enumerate(read_manifest(folder), 1):
        try:
            yield row_of(values)
        except (ValidationError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise BadInput(
                f"row {number} of {manifest_path(folder)} cannot be read ({reason})"
            ) from error

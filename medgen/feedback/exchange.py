"""The log in and out of files: lines of JSON that hold all of it, and a table of the ratings."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.feedback.log import KINDS, FeedbackLog
from medgen.feedback.records import (
    ImportReport,
    LoggedCandidate,
    LoggedRun,
    Rating,
    Record,
)

COLUMNS = (
    *("image_path", "rating", "modality", "expert_level", "prompt", "rater", "scale", "source"),
    *("comment", "blinded", "seconds", "run", "candidate", "image_sha256", "created"),
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
RECORDS: dict[str, type[Record]] = {
    "run": LoggedRun,
    "candidate": LoggedCandidate,
    **{kind: record for record, kind in KINDS.items()},
}


def export_log(log: FeedbackLog, path: Path) -> Path:
    """Write a log to a new file, whole or not at all: `.jsonl` all of it, `.csv` the ratings.

    Raises:
        BadInput: Another ending, or the file is there already.
    """
    if path.exists():
        raise BadInput(f"{path} is there already: choose another name")
    if path.suffix == ".jsonl":
        return write_atomic(path, "".join(_lines(log)))
    if path.suffix == ".csv":
        return write_atomic(path, _table(log.ratings()))
    raise BadInput(f"{path} has no known ending: .jsonl for the whole log, .csv for its ratings")


def log_digest(log: FeedbackLog) -> str:
    """SHA-256 (hex) over all that a log holds: what a trained model says it learned from."""
    digest = hashlib.sha256()
    for line in _lines(log):
        digest.update(line.encode())
    return digest.hexdigest()


def _lines(log: FeedbackLog) -> Iterator[str]:
    every: list[tuple[str, Record]] = [("run", run) for run in log.runs()]
    every += [("candidate", candidate) for candidate in log.candidates()]
    every += [("rating", rating) for rating in log.ratings(history=True)]
    every += [("pair", pair) for pair in log.pairs(history=True)]
    every += [("guess", guess) for guess in log.guesses(history=True)]
    for kind, record in every:
        line = {"kind": kind, **record.model_dump(mode="json")}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _table(ratings: list[Rating]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for rating in ratings:
        row = rating.model_dump(mode="json")
        writer.writerow({name: _inert(value) for name, value in row.items()})
    return text.getvalue()


def _inert(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: a raters' text may begin like one."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def import_log(log: FeedbackLog, path: str | Path) -> ImportReport:
    """Add what another log exported (`.jsonl`); what this log has already is not added again.

    Raises:
        BadInput: A line that is no record of a log; nothing was added then.
    """
    path = Path(path)
    records = list(_records(path))
    added = log.append_records(records)
    return ImportReport(table=str(path), rows=len(records), added=added, known=len(records) - added)


def _records(path: Path) -> Iterator[Record]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path} ({error}): give an exported log") from error
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            content = json.loads(line)
            yield RECORDS[content.pop("kind")].model_validate(content)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"{path}, line {number} is no record of a feedback log ({reason}): nothing was "
                "added"
            ) from error

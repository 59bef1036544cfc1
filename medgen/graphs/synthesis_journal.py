"""The journal of a dataset (SQLite): cells, tasks, reasoning and attempts, as far as they are done.

One process writes it. A step's attempts, settled and failed tasks go in together or not at all,
so that whatever moment a run is killed at, what is in the journal is done and what is not in it is
done anew, with the same bytes. Seconds are kept here and in no output.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medgen.errors import BadInput, MedgenError
from medgen.graphs.synthesis_tasks import Attempt, Reasoned, Task
from medgen.graphs.synthesis_worker import Report, Settled

JOURNAL = "journal.sqlite"
FORMAT = 1
WAITING, SETTLED, QUARANTINED = 0, 1, 2
TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cells (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, modality TEXT NOT NULL,
    wanted INTEGER NOT NULL, started INTEGER NOT NULL DEFAULT 0, closed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, cell INTEGER NOT NULL REFERENCES cells, number INTEGER NOT NULL,
    prompt TEXT NOT NULL, modality TEXT, seed INTEGER NOT NULL, control INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0, error TEXT,
    accepted INTEGER, rounds INTEGER, why TEXT, turned_down TEXT, spare INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX tasks_in_turn ON tasks (state, number, cell);
CREATE INDEX suspect_tasks ON tasks (state, failures) WHERE failures > 0;
CREATE INDEX tasks_of_cell ON tasks (cell, state);
CREATE TABLE prompts (
    prompt TEXT NOT NULL, modality TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (prompt, modality)
) WITHOUT ROWID;
CREATE TABLE attempts (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, kept INTEGER NOT NULL, reason TEXT NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (task, attempt)
) WITHOUT ROWID;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, seconds REAL NOT NULL DEFAULT 0,
    workers INTEGER NOT NULL, work TEXT NOT NULL DEFAULT '{}'
);
"""


@dataclass(frozen=True)
class Quota:
    """A cell's account: what is wanted, started, still waiting, and accepted and kept so far."""

    position: int
    id: str
    modality: str
    wanted: int
    started: int
    closed: bool
    waiting: int
    kept: int


@dataclass(frozen=True)
class TaskRow:
    """A task as the journal has it."""

    task: Task
    cell: int
    state: int
    failures: int
    error: str | None
    accepted: int | None
    rounds: int | None
    turned_down: str | None
    spare: bool


_TASK = (
    "id, prompt, modality, seed, control, cell, state, failures, error, accepted, rounds, "
    "turned_down, spare"
)

_QUOTAS = (
    "SELECT c.position, c.id, c.modality, c.wanted, c.started, c.closed, "
    "COALESCE(SUM(t.state = 0), 0), COALESCE(SUM(t.state = 1 AND t.accepted IS NOT NULL "
    "AND t.turned_down IS NULL AND t.spare = 0), 0) "
    "FROM cells c LEFT JOIN tasks t ON t.cell = c.position"
)


class Journal:
    """A journal that is there; `create` makes one."""

    def __init__(self, path: Path) -> None:
        """Open a journal.

        Raises:
            BadInput: There is none, or it is damaged or another release's.
        """
        self.path = path
        if not path.is_file():
            raise BadInput(f"no journal at {path}: start the run without --resume")
        self._db = _connect(path)
        try:
            found = self.meta("format")
        except MedgenError as error:
            self._db.close()
            raise BadInput(f"{path} is damaged ({error}): start the run anew") from error
        if found != FORMAT:
            self._db.close()
            raise BadInput(f"{path} is another release's (format {found}): start the run anew")

    @classmethod
    def create(
        cls, path: Path, meta: dict[str, Any], cells: Iterable[tuple[int, str, str, int]]
    ) -> Journal:
        """Make a journal, whole or not at all.

        Args:
            path: Where; nothing may be there.
            meta: What describes the run.
            cells: Position, id, modality and images wanted of each.
        """
        new = path.with_name(f".{path.name}.new")
        for leftover in (new, new.with_name(f"{new.name}-wal"), new.with_name(f"{new.name}-shm")):
            leftover.unlink(missing_ok=True)
        database = _connect(new)
        try:
            with database:
                database.executescript(f"BEGIN;{TABLES}COMMIT;")
            with database:
                told = {"format": FORMAT, **meta}
                database.executemany(
                    "INSERT INTO meta VALUES (?, ?)",
                    [(name, json.dumps(value)) for name, value in told.items()],
                )
                database.executemany(
                    "INSERT INTO cells (position, id, modality, wanted) VALUES (?, ?, ?, ?)", cells
                )
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            database.close()
        new.rename(path)
        return cls(path)

    def copy(self) -> bytes:
        """The whole journal as one file's bytes."""
        with tempfile.TemporaryDirectory(prefix="medgen-") as folder:
            place = Path(folder) / JOURNAL
            with closing(sqlite3.connect(place)) as target:
                self._db.backup(target)
            return place.read_bytes()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                yield self._db
        except sqlite3.Error as error:
            raise MedgenError(
                f"cannot write {self.path} ({error}): make room, then go on with --resume"
            ) from error

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise MedgenError(f"cannot read {self.path} ({error})") from error

    def meta(self, name: str) -> Any:
        """What describes the run, None where nothing does."""
        found = self._rows("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    def set_meta(self, **values: Any) -> None:
        """Describe the run."""
        with self._writing() as database:
            database.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in values.items()],
            )

    def start_tasks(self, cell: int, tasks: Iterable[Task], started: int) -> None:
        """Add tasks to a cell that had `started` before; those that are there stay as they are."""
        with self._writing() as database:
            count = started
            for task in tasks:
                database.execute(
                    "INSERT OR IGNORE INTO tasks (id, cell, number, prompt, modality, seed, "
                    "control) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (task.id, cell, count, task.prompt, task.modality, task.seed, task.control),
                )
                count += 1
            database.execute("UPDATE cells SET started = ? WHERE position = ?", (count, cell))

    def next_tasks(self, count: int, without: Sequence[str]) -> list[TaskRow]:
        """Waiting tasks in turn, one of every cell and then the next, without those given."""
        held = set(without)
        found = self._rows(
            f"SELECT {_TASK} FROM tasks WHERE state = ? ORDER BY number, cell LIMIT ?",
            WAITING,
            count + len(held),
        )
        return [_task_row(row) for row in found if row[0] not in held][:count]

    def suspects(self, without: Sequence[str]) -> list[TaskRow]:
        """Waiting tasks that failed before, without those given."""
        query = f"SELECT {_TASK} FROM tasks WHERE state = ? AND failures > 0 ORDER BY number, cell"
        found = [_task_row(row) for row in self._rows(query, WAITING)]
        return [row for row in found if row.task.id not in set(without)]

    def attempts(self, task: str) -> list[Attempt]:
        """A task's attempts in order."""
        found = self._rows("SELECT body FROM attempts WHERE task = ? ORDER BY attempt", task)
        return [Attempt.model_validate_json(zlib.decompress(body)) for (body,) in found]

    def reasoned(self, prompt: str, modality: str | None) -> Reasoned | None:
        """What was concluded from a prompt before."""
        found = self._rows(
            "SELECT body FROM prompts WHERE prompt = ? AND modality = ?", prompt, modality or ""
        )
        return Reasoned.model_validate_json(zlib.decompress(found[0][0])) if found else None

    def keep_reasoned(self, prompt: str, modality: str | None, reasoned: Reasoned) -> None:
        """Keep what was concluded from a prompt."""
        body = zlib.compress(reasoned.model_dump_json().encode())
        with self._writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO prompts VALUES (?, ?, ?)", (prompt, modality or "", body)
            )

    def record(self, report: Report, reasons: Sequence[str], retries: int) -> list[str]:
        """Write a step's outcome in one transaction.

        Args:
            report: Of the step.
            reasons: Why each attempt was turned down, in few words; empty for accepted ones.
            retries: A task that failed more often than that is set aside.

        Returns:
            The tasks that were set aside.
        """
        aside = []
        with self._writing() as database:
            for attempt, reason in zip(report.attempts, reasons, strict=True):
                body = zlib.compress(attempt.model_dump_json().encode())
                database.execute(
                    "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?)",
                    (
                        attempt.task,
                        attempt.attempt,
                        attempt.kept,
                        reason,
                        body,
                    ),
                )
            for settled in report.settled:
                _settle(database, settled)
            for task, error in report.failed:
                aside += self._failed(database, task, error, retries)
        return aside

    def failed(self, tasks: Iterable[str], error: str, retries: int) -> list[str]:
        """Note that tasks failed; returns those that are set aside now."""
        with self._writing() as database:
            return [one for task in tasks for one in self._failed(database, task, error, retries)]

    @staticmethod
    def _failed(database: sqlite3.Connection, task: str, error: str, retries: int) -> list[str]:
        database.execute(
            "UPDATE tasks SET failures = failures + 1, error = ?, "
            "state = CASE WHEN failures >= ? THEN ? ELSE state END WHERE id = ? AND state = ?",
            (error[:2000], retries, QUARANTINED, task, WAITING),
        )
        found = database.execute("SELECT state FROM tasks WHERE id = ?", (task,)).fetchone()
        return [task] if found and found[0] == QUARANTINED else []

    def quotas(self, open_only: bool = False) -> list[Quota]:
        """Every cell's account, in order."""
        chosen = "WHERE c.closed = 0 " if open_only else ""
        found = self._rows(f"{_QUOTAS} {chosen}GROUP BY c.position ORDER BY c.position")
        return [_quota(row) for row in found]

    def quota(self, cell: int) -> Quota:
        """One cell's account."""
        return _quota(self._rows(f"{_QUOTAS} WHERE c.position = ? GROUP BY c.position", cell)[0])

    def waits(self, cell: int) -> bool:
        """Whether tasks of a cell wait."""
        query = "SELECT 1 FROM tasks WHERE cell = ? AND state = ? LIMIT 1"
        return bool(self._rows(query, cell, WAITING))

    def accepted(self, cell: int) -> Iterator[tuple[TaskRow, Attempt]]:
        """A cell's accepted tasks that were not turned down, by number, with what was accepted."""
        found = self._rows(
            f"SELECT {_TASK} FROM tasks WHERE cell = ? AND state = ? AND accepted IS NOT NULL "
            "AND turned_down IS NULL AND spare = 0 ORDER BY number",
            cell,
            SETTLED,
        )
        for row in map(_task_row, found):
            body = self._rows(
                "SELECT body FROM attempts WHERE task = ? AND attempt = ?",
                row.task.id,
                row.accepted,
            )[0][0]
            yield row, Attempt.model_validate_json(zlib.decompress(body))

    def close_cell(self, cell: int, spare: Sequence[str]) -> None:
        """Nothing more is made for a cell; `spare` tasks' images are not kept."""
        with self._writing() as database:
            database.executemany("UPDATE tasks SET spare = 1 WHERE id = ?", [(t,) for t in spare])
            database.execute("UPDATE cells SET closed = 1 WHERE position = ?", (cell,))

    def turn_down(self, reasons: dict[str, str]) -> None:
        """Accepted tasks whose images are not kept, and why."""
        with self._writing() as database:
            database.executemany(
                "UPDATE tasks SET turned_down = ? WHERE id = ?",
                [(reason, task) for task, reason in reasons.items()],
            )

    def tasks(self, state: int | None = None) -> Iterator[TaskRow]:
        """All tasks by id, or those in one state; a few in memory at a time."""
        last = ""
        while True:
            chosen = "" if state is None else f"AND state = {int(state)} "
            found = self._rows(
                f"SELECT {_TASK} FROM tasks WHERE id > ? {chosen}ORDER BY id LIMIT 512", last
            )
            if not found:
                return
            yield from map(_task_row, found)
            last = found[-1][0]

    def is_kept(self, task: str) -> bool:
        """Whether a task's accepted image is one of the dataset's."""
        query = (
            "SELECT 1 FROM tasks WHERE id = ? AND state = ? AND accepted IS NOT NULL "
            "AND turned_down IS NULL AND spare = 0"
        )
        return bool(self._rows(query, task, SETTLED))

    def is_rejected(self, task: str, attempt: int) -> bool:
        """Whether a settled task's attempt is rejected, or was accepted and turned down."""
        query = (
            "SELECT 1 FROM attempts a JOIN tasks t ON t.id = a.task WHERE a.task = ? AND "
            "a.attempt = ? AND (a.kept = 0 OR (t.accepted = a.attempt AND "
            "t.turned_down IS NOT NULL)) AND t.state = ?"
        )
        return bool(self._rows(query, task, attempt, SETTLED))

    def reasons(self) -> dict[str, int]:
        """How many candidates were turned down, by reason in few words."""
        found = self._rows(
            "SELECT reason, COUNT(*) FROM attempts WHERE reason <> '' GROUP BY reason "
            "ORDER BY COUNT(*) DESC, reason"
        )
        return {str(reason): int(count) for reason, count in found}

    def counts(self) -> dict[str, int]:
        """How many candidates were drawn, and how many tasks are in each state."""
        (drawn,) = self._rows("SELECT COUNT(*) FROM attempts")[0]
        states = dict(self._rows("SELECT state, COUNT(*) FROM tasks GROUP BY state"))
        (copies,) = self._rows("SELECT COUNT(*) FROM tasks WHERE turned_down IS NOT NULL")[0]
        return {
            "drawn": int(drawn),
            "waiting": int(states.get(WAITING, 0)),
            "settled": int(states.get(SETTLED, 0)),
            "quarantined": int(states.get(QUARANTINED, 0)),
            "near copies": int(copies),
        }

    def begin_session(self, started: str, workers: int) -> int:
        """Note that a process begins to work; returns its number."""
        with self._writing() as database:
            cursor = database.execute(
                "INSERT INTO sessions (started, workers) VALUES (?, ?)", (started, workers)
            )
        return int(cursor.lastrowid or 0)

    def note_session(self, session: int, seconds: float, work: dict[str, float]) -> None:
        """Note how long a process has worked, and on what."""
        with self._writing() as database:
            database.execute(
                "UPDATE sessions SET seconds = ?, work = ? WHERE id = ?",
                (seconds, json.dumps(work), session),
            )

    def sessions(self) -> list[tuple[str, float, int, dict[str, float]]]:
        """Each process: when it began, its seconds, its workers and seconds by kind of work."""
        found = self._rows("SELECT started, seconds, workers, work FROM sessions ORDER BY id")
        return [(row[0], row[1], row[2], json.loads(row[3])) for row in found]


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        database.close()
        raise BadInput(f"{path} cannot be opened ({error})") from error
    return database


def _settle(database: sqlite3.Connection, settled: Settled) -> None:
    database.execute(
        "UPDATE tasks SET state = ?, accepted = ?, rounds = ?, why = ? WHERE id = ?",
        (SETTLED, settled.accepted, settled.rounds, settled.why, settled.task),
    )


def _task_row(row: Sequence[Any]) -> TaskRow:
    task = Task(id=row[0], prompt=row[1], modality=row[2], seed=row[3], control=bool(row[4]))
    cell, state, failures, error, accepted, rounds, turned_down, spare = row[5:]
    return TaskRow(task, cell, state, failures, error, accepted, rounds, turned_down, bool(spare))


def _quota(row: Sequence[Any]) -> Quota:
    position, name, modality, wanted, started, closed, waiting, kept = row
    return Quota(position, name, modality, wanted, started, bool(closed), waiting, kept)

"""The log in one SQLite file (WAL), written by any number of processes of one machine."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from medgen.errors import BadInput, MedgenError
from medgen.feedback.database import Database
from medgen.feedback.schema import TABLES, VERSION

PAUSE = 0.02  # seconds between two tries to switch a new file to WAL


class SqliteDatabase(Database):
    """A log in a file.

    Args:
        path: The file; made when it is not there.
        timeout: Seconds to wait for another process that is writing.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__(timeout)
        self.path = path.expanduser().resolve()
        self.name = str(self.path)

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            self._write_ahead(connection)
            connection.execute("PRAGMA recursive_triggers = ON")  # REPLACE is refused too
        except BaseException:
            connection.close()
            raise
        return connection

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL; SQLite does not wait here when another process does the same."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = self._version(connection)
            if found == 0:
                connection.execute("CREATE TABLE feedback_schema (version INTEGER NOT NULL)")
            self._apply_missing(connection, found, "INTEGER PRIMARY KEY AUTOINCREMENT")
            for table in TABLES:
                for event in ("UPDATE", "DELETE"):
                    connection.execute(
                        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{event.lower()} "
                        f"BEFORE {event} ON {table} "
                        "BEGIN SELECT RAISE(ABORT, 'the feedback log is append-only'); END"
                    )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has undone it already
                connection.execute("ROLLBACK")
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "feedback_schema" in tables:
            return int(connection.execute("SELECT MAX(version) FROM feedback_schema").fetchone()[0])
        if tables:
            raise BadInput(f"{self.name} is another program's database: name another log")
        return 0

    def _begin(self, connection: sqlite3.Connection, durable: bool) -> None:
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")

    def _spell(self, sql: str) -> str:
        return sql

    def _explain(self, error: Exception) -> MedgenError:
        text = str(error)
        if "locked" in text:
            return MedgenError(
                f"feedback log {self.name} was locked for {self.timeout:g} s: another program "
                "holds it; try again when that has ended"
            )
        if "malformed" in text or "not a database" in text:
            return BadInput(
                f"feedback log {self.name} is damaged or no log ({text}): name another, or save "
                "what can be read with sqlite3's .recover"
            )
        return MedgenError(
            f"feedback log {self.name} cannot be used ({text}): check the folder, its rights and "
            "the space on the disk, or name another log"
        )

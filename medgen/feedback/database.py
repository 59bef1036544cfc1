"""What the log asks of a database, whichever it is; `sqlite` and `postgres` answer it.

Statements use `?` for values. One object may be used by several threads, and after a fork each
process opens its own connection. Knows rows and errors; knows nothing of what the rows mean.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from medgen.errors import BadInput, MedgenError
from medgen.feedback.schema import MIGRATIONS, TABLES, VERSION

Result = TypeVar("Result")
Values = Sequence[Any]
Row = tuple[str, Values]  # a table and the values of its columns (`schema.TABLES`)


class Database(ABC):
    """A place for the log's tables, opened when first used and brought to the newest schema."""

    name: str

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._lock = threading.RLock()
        self._connection: Any = None
        self._owner = 0

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is something to open."""

    @abstractmethod
    def _connect(self) -> Any:
        """A connection in autocommit mode."""

    @abstractmethod
    def _migrate(self, connection: Any) -> None:
        """Bring the tables to the newest schema, one process at a time, and guard them."""

    @abstractmethod
    def _begin(self, connection: Any, durable: bool) -> None:
        """Start a transaction that writes; a durable one outlives a loss of power."""

    @abstractmethod
    def _explain(self, error: Exception) -> MedgenError:
        """What a database error means to a person."""

    @abstractmethod
    def _spell(self, sql: str) -> str:
        """A statement with this database's placeholders."""

    def append(self, rows: Sequence[Row], durable: bool) -> int:
        """Add rows in one transaction; rows that the log has already are passed over.

        Args:
            rows: Of any tables.
            durable: Wait until the disk has them (a few milliseconds).

        Returns:
            How many rows were new.

        Raises:
            MedgenError: The log is locked, full, damaged or not to be written; nothing was added.
        """

        def write(connection: Any) -> int:
            self._begin(connection, durable)
            try:
                added = 0
                for table, values in rows:
                    added += connection.execute(self._insert(table), values).rowcount
                connection.execute("COMMIT")
                return added
            except BaseException:
                with suppress(Exception):  # a full disk or a lost server has undone it already
                    connection.execute("ROLLBACK")
                raise

        return self._with_connection(write)

    def select(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            MedgenError: The log cannot be read.
        """
        return self._with_connection(
            lambda connection: connection.execute(self._spell(sql), values).fetchall()
        )

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    def _insert(self, table: str) -> str:
        columns = TABLES[table]
        places = ", ".join("?" * len(columns))
        return self._spell(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"
        )

    def _with_connection(self, act: Callable[[Any], Result]) -> Result:
        with self._lock:
            try:
                if self._connection is None or self._owner != os.getpid():
                    self._connection, self._owner = None, os.getpid()
                    connection = self._connect()
                    try:
                        self._migrate(connection)
                    except BaseException:
                        connection.close()
                        raise
                    self._connection = connection
                return act(self._connection)
            except MedgenError:
                raise
            except Exception as error:
                raise self._explain(error) from error

    def _apply_missing(self, connection: Any, found: int, serial: str) -> None:
        if found > VERSION:
            raise BadInput(
                f"feedback log {self.name} has schema {found}, this medgen knows {VERSION}: "
                "update medgen"
            )
        for number in range(found, VERSION):
            for statement in MIGRATIONS[number]:
                connection.execute(statement.format(serial=serial))
            connection.execute(f"INSERT INTO feedback_schema VALUES ({number + 1})")

"""The log in PostgreSQL, for many machines; needs `pip install "medgen[postgres]"`."""

from __future__ import annotations

import re
from typing import Any

from medgen.errors import BadInput, MedgenError
from medgen.feedback.database import Database
from medgen.feedback.schema import TABLES, VERSION

MIGRATION_LOCK = 7_203_331  # any number; one migration a database at a time holds it


class PostgresDatabase(Database):
    """A log in a PostgreSQL database.

    Args:
        url: `postgresql://USER:PASSWORD@HOST/DATABASE`; what is left out comes from `PGUSER`,
            `PGPASSWORD` and so on.
        timeout: Seconds to wait for the server and for locks.
    """

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(timeout)
        self.url = url
        self.name = re.sub("//.*@", "//", url).split("?")[0]  # no password

    def exists(self) -> bool:
        """True: a server that is not there says so when it is used."""
        return True

    def _connect(self) -> Any:
        try:
            import psycopg
        except ImportError as error:
            raise BadInput(
                f'feedback log {self.name} needs psycopg: pip install "medgen[postgres]"'
            ) from error
        connection = psycopg.connect(
            self.url, autocommit=True, connect_timeout=max(2, round(self.timeout))
        )
        connection.execute(f"SET lock_timeout = '{self.timeout:g}s'")
        return connection

    def _migrate(self, connection: Any) -> None:
        if self._version(connection) == VERSION:
            return
        # Held around the transaction, not in it: one that began earlier may not see new tables.
        connection.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        try:
            with connection.transaction():
                found = self._version(connection)
                if found == 0:
                    connection.execute("CREATE TABLE feedback_schema (version INTEGER NOT NULL)")
                self._apply_missing(
                    connection, found, "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
                )
                connection.execute(
                    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger "
                    "LANGUAGE plpgsql AS "
                    "$$ BEGIN RAISE EXCEPTION 'the feedback log is append-only'; END $$"
                )
                for table in TABLES:
                    connection.execute(
                        f"CREATE OR REPLACE TRIGGER {table}_append_only "
                        f"BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
                    )
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))

    @staticmethod
    def _version(connection: Any) -> int:
        known = connection.execute("SELECT to_regclass('feedback_schema')").fetchone()[0]
        if known is None:
            return 0
        return int(connection.execute("SELECT MAX(version) FROM feedback_schema").fetchone()[0])

    def _begin(self, connection: Any, durable: bool) -> None:
        connection.execute("BEGIN")
        connection.execute(f"SET LOCAL synchronous_commit = {'on' if durable else 'off'}")

    def _spell(self, sql: str) -> str:
        return sql.replace("?", "%s")

    def _explain(self, error: Exception) -> MedgenError:
        if self._connection is not None and (self._connection.closed or self._connection.broken):
            self._connection = None
        reason = " ".join(str(error).split()) or type(error).__name__
        return MedgenError(
            f"feedback log {self.name} cannot be used ({reason}): check the server and the URL"
        )

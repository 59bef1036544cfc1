"""Records for a log, and the logs that tests run on: a file, and a PostgreSQL database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres_server import postgres as postgres

from medgen.feedback.log import FeedbackLog


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new, empty log may lie: a file, then a PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "log.sqlite")
    import psycopg

    server = request.getfixturevalue("postgres")
    name = f"log_{os.urandom(4).hex()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # a database each would take much longer
    return f"{server}?options=-csearch_path%3D{name}"


@pytest.fixture
def open_log(place: str) -> Iterator[Callable[[], FeedbackLog]]:
    """Opens the same log again and again, as other processes would."""
    opened: list[FeedbackLog] = []

    def again() -> FeedbackLog:
        opened.append(FeedbackLog(place))
        return opened[-1]

    yield again
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: Callable[[], FeedbackLog]) -> FeedbackLog:
    """A new, empty log."""
    return open_log()

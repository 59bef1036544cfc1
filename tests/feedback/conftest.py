"""Records for a log, a throwaway PostgreSQL server, and the logs that tests run on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from medgen.feedback.log import FeedbackLog

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def _server_programs() -> Path | None:
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    versions = sorted(DEBIAN_POSTGRES.glob("*/bin/pg_ctl"))
    return versions[-1].parent if versions else None


def _as_server_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of these tests' own."""
    pytest.importorskip("psycopg", reason="PostgreSQL log: psycopg is not installed")
    programs = _server_programs()
    if programs is None:
        pytest.skip("PostgreSQL log: no pg_ctl on this machine")
    if os.geteuid() == 0 and not shutil.which("runuser"):
        pytest.skip("PostgreSQL log: running as root, and no runuser to leave it")
    folder = Path(tempfile.mkdtemp(prefix="medgen-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", _free_port()
    control = [str(programs / "pg_ctl"), "-D", str(data), "-w"]
    options = f"-F -p {port} -k {folder} -c listen_addresses=127.0.0.1"
    try:
        for command in (
            [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "medgen", "-N"],
            [*control, "-o", options, "-l", str(folder / "server.log"), "start"],
        ):
            subprocess.run(_as_server_user(command), check=True, capture_output=True, cwd=folder)
        yield f"postgresql://medgen@127.0.0.1:{port}/postgres"
    finally:
        stop = _as_server_user([*control, "-m", "immediate", "stop"])
        subprocess.run(stop, capture_output=True, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


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

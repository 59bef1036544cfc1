"""A throwaway PostgreSQL server for tests; skipped by name where there is none, never in CI."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def _server_programs() -> Path | None:
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    versions = sorted(DEBIAN_POSTGRES.glob("*/bin/pg_ctl"))
    return versions[-1].parent if versions else None


def _without(why: str) -> NoReturn:
    """Skip, or fail where a server is required (`MEDGEN_TEST_POSTGRES=required`, as in CI)."""
    if os.environ.get("MEDGEN_TEST_POSTGRES") == "required":
        pytest.fail(f"PostgreSQL is required here: {why}")
    pytest.skip(f"PostgreSQL: {why}")


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
    try:
        import psycopg

        _ = psycopg
    except ImportError:
        _without("psycopg is not installed")
    programs = _server_programs()
    if programs is None:
        _without("no pg_ctl on this machine")
    if os.geteuid() == 0 and not shutil.which("runuser"):
        _without("running as root, and no runuser to leave it")
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

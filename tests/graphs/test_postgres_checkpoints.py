"""Checkpoints in a real PostgreSQL: runs stop and go on, fork and are read, side by side."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from phantom import phantom_collaborators
from postgres_server import postgres as postgres

from medgen.errors import BadInput, Cancelled, MedgenError
from medgen.graphs.agent import Agent
from medgen.graphs.forking import fork
from medgen.graphs.run_folder import RunFolder
from medgen.graphs.runs import load_run
from medgen.settings import settings

PROMPT = "cardiomegaly, chest X-ray"


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def database(postgres: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A schema of the test's own, and the setting that leads there."""
    import psycopg

    name = f"checkpoints_{os.urandom(4).hex()}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    url = f"{postgres}?options=-csearch_path%3D{name}"
    monkeypatch.setenv("MEDGEN_CHECKPOINTS", url)
    settings.cache_clear()
    yield url
    settings.cache_clear()


def threads(url: str) -> set[str]:
    import psycopg

    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT DISTINCT thread_id FROM checkpoints").fetchall()
    return {row[0] for row in found}


def test_a_run_stops_and_goes_on_from_the_database(
    agent: Agent, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes: list[str] = []

    def stop(event: object) -> None:
        nodes.append(event.node)  # type: ignore[attr-defined]
        if nodes[-1] == "verify":
            raise Cancelled("stop here")

    with pytest.raises(Cancelled):
        agent.run(PROMPT, seed=3, out=tmp_path / "stopped", on_event=stop)
    before = len(nodes)
    again = Agent(phantom_collaborators())
    run = again.run(resume=tmp_path / "stopped", on_event=lambda one: nodes.append(one.node))
    assert nodes.count("parse") == 1 and nodes[before] == "select"
    assert not list((tmp_path / "stopped").glob("checkpoints*"))
    assert threads(database) == {run.run_id}

    monkeypatch.delenv("MEDGEN_CHECKPOINTS")
    settings.cache_clear()
    on_file = Agent(phantom_collaborators()).run(PROMPT, seed=3, out=tmp_path / "file")
    assert (tmp_path / "file" / "checkpoints.sqlite").is_file()
    assert digest(run.images[0]) == digest(on_file.images[0])


def test_runs_are_read_and_forked_from_the_database(
    agent: Agent, database: str, tmp_path: Path
) -> None:
    run = agent.run(PROMPT, seed=3, out=tmp_path / "parent")
    trace = load_run(run.folder)
    assert trace.plan is not None and len(trace.candidates) == run.candidates
    child = fork(RunFolder.open(run.folder), "compose", out=tmp_path / "child", agent=agent)
    assert child.run_id != run.run_id
    assert {run.run_id, child.run_id} == threads(database)


def test_many_runs_share_a_database_that_is_new(database: str, tmp_path: Path) -> None:
    def draw(number: int) -> str:
        agent = Agent(phantom_collaborators())
        return agent.run(PROMPT, seed=number, out=tmp_path / f"run{number}").run_id

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(draw, range(4)))
    assert threads(database) == ids and len(ids) == 4


def test_bad_input_leaves_nothing_in_the_database(
    agent: Agent, database: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        agent.run("Kardiomegalie", out=tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    assert threads(database) == set()


def test_a_database_out_of_reach_is_one_line_without_the_password(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg", reason="PostgreSQL checkpoints: psycopg is not installed")
    monkeypatch.setenv("MEDGEN_CHECKPOINTS", "postgresql://me:secret@127.0.0.1:1/runs")
    settings.cache_clear()
    with pytest.raises(
        MedgenError, match=r"checkpoints in postgresql://127\.0\.0\.1:1/runs"
    ) as told:
        agent.run(PROMPT, out=tmp_path / "run")
    assert "secret" not in str(told.value)

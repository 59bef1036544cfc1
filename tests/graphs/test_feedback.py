"""Runs reach the feedback log whole and once, and the log's troubles never reach the run."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medgen.data.images import pixel_sha256
from medgen.feedback.log import FeedbackLog
from medgen.graphs.agent import Agent
from medgen.settings import settings

PROMPT = "cardiomegaly, chest X-ray"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeedbackLog]:
    monkeypatch.setenv("MEDGEN_FEEDBACK", str(tmp_path / "log.sqlite"))
    settings.cache_clear()
    yield FeedbackLog()
    settings.cache_clear()


def test_a_run_is_logged_whole_and_once(agent: Agent, log: FeedbackLog) -> None:
    run = agent.run(PROMPT, seed=3, rounds=4)
    agent.run(resume=Path(run.trace).parent)

    (logged,) = log.runs()
    assert logged.request.prompt == PROMPT
    assert logged.plan.findings[0].finding == "cardiomegaly"
    candidates = log.candidates(run=run.run_id)
    assert len(candidates) == run.candidates
    assert [one.drawn.id for one in candidates if one.chosen] == [run.results[0].candidate]
    assert all(one.drawn.critique is not None for one in candidates)
    assert all(one.decision is not None and one.why for one in candidates if one.chosen)
    for one in candidates:
        assert one.image_sha256 == pixel_sha256(one.image_path)
        assert not one.chosen or one.image_sha256 == pixel_sha256(run.images[0])
    refined = [one for one in candidates if one.drawn.parent]
    assert refined and all(one.outcomes for one in refined), (
        "what the refiner tried, and its effect"
    )


def test_off_means_no_log(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: FeedbackLog
) -> None:
    monkeypatch.setenv("MEDGEN_FEEDBACK", "off")
    settings.cache_clear()
    agent.run(PROMPT, rounds=1)
    assert not (tmp_path / "log.sqlite").exists()


def test_a_locked_log_is_one_warning(
    agent: Agent, log: FeedbackLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert log.count("runs") == 0
    holder = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    run = agent.run(PROMPT, rounds=1)
    holder.execute("ROLLBACK")
    assert Path(run.images[0]).is_file()
    assert time.monotonic() - began < 10
    (warning,) = [one.getMessage() for one in caplog.records if "feedback log" in one.getMessage()]
    assert "locked" in warning and "\n" not in warning
    assert log.count("runs") == 0


@pytest.mark.parametrize("trouble", ["folder", "no database", "other database"])
def test_a_log_that_cannot_be_written_is_one_warning(
    agent: Agent,
    log: FeedbackLog,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    path = tmp_path / "log.sqlite"
    if trouble == "folder":
        path.mkdir()
    elif trouble == "no database":
        path.write_text("ratings, ratings, ratings " * 100)
    else:
        sqlite3.connect(path).execute("CREATE TABLE somebody_elses (a)")
    assert Path(agent.run(PROMPT, rounds=1).images[0]).is_file()
    messages = [one.getMessage() for one in caplog.records if "feedback log" in one.getMessage()]
    assert len(messages) == 1 and "\n" not in messages[0]

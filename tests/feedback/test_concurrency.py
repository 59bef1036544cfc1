"""Several processes at once, kills and cut-off files: what was said to be logged is there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import rating

from medgen.feedback.log import FeedbackLog

WRITERS, EACH = 4, 40
WRITE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from samples import rating, run
from medgen.feedback.log import FeedbackLog
log, writer, count = FeedbackLog(sys.argv[1], timeout=60), sys.argv[2], int(sys.argv[3])
for number in range(count):
    log.append_run(run(f"{{writer}}-{{number}}", 2))
    log.append_rating(rating(number, rater=writer))
    print(number, flush=True)
"""


def writer(place: str, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, place, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_four_writers_at_once_lose_nothing(place: str) -> None:
    writers = [writer(place, f"w{number}", EACH) for number in range(WRITERS)]
    assert [one.wait(timeout=120) for one in writers] == [0] * WRITERS
    log = FeedbackLog(place)
    said = {(one.rater, one.image_path) for one in log.ratings()}
    assert said == {(f"w{n}", f"/{i}.png") for n in range(WRITERS) for i in range(EACH)}
    assert (log.count("runs"), log.count("candidates")) == (WRITERS * EACH, 2 * WRITERS * EACH)
    log.close()


def test_what_a_killed_writer_said_is_there(place: str) -> None:
    FeedbackLog(place).close()
    doomed = writer(place, "w", 100_000)
    assert doomed.stdout is not None
    told = [int(doomed.stdout.readline()) for _ in range(20)]
    os.kill(doomed.pid, signal.SIGKILL)
    told += [int(line) for line in doomed.stdout.read().split("\n")[:-1]]
    doomed.wait()

    log = FeedbackLog(place)
    ratings = {one.image_path for one in log.ratings()}
    assert {f"/{number}.png" for number in told} <= ratings
    runs = {one.run for one in log.runs()}
    assert {f"w-{number}" for number in told} <= runs
    assert log.count("candidates") == 2 * len(runs), "a run is there whole or not at all"
    assert log.append_rating(rating("after the kill")) == 1
    log.close()


@pytest.fixture(scope="module")
def unfolded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose ratings lie in its write-ahead file, copied while it was open."""
    folder = tmp_path_factory.mktemp("unfolded")
    log = FeedbackLog(folder / "open.sqlite")
    for number in range(20):
        log.append_rating(rating(number))
    for ending in ("", "-wal"):
        shutil.copy(folder / f"open.sqlite{ending}", folder / f"copy.sqlite{ending}")
    log.close()
    return folder / "copy.sqlite"


@pytest.mark.parametrize("share", [0.0, 0.31, 0.62, 0.93, 0.9999, 1.0])
def test_a_log_cut_off_anywhere_opens(unfolded: Path, tmp_path: Path, share: float) -> None:
    copy = tmp_path / "log.sqlite"
    shutil.copy(unfolded, copy)
    written = Path(f"{unfolded}-wal").read_bytes()
    kept = written[: int(len(written) * share)]
    Path(f"{copy}-wal").write_bytes(kept)

    log = FeedbackLog(copy)
    paths = [one.image_path for one in log.ratings()]
    assert paths == [f"/{number}.png" for number in range(len(paths))], "the first ones, no gap"
    assert len(paths) >= int(20 * share) - 3
    assert len(paths) == 20 or share < 1
    assert log.append_rating(rating("more")) == 1
    log.close()


def test_a_fork_does_not_share_its_parents_connection(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append_rating(rating("parent"))
    child = os.fork()
    if child == 0:
        log.append_rating(rating("child"))
        os._exit(0)
    deadline = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    log.append_rating(rating("parent again"))
    assert len(log.ratings()) == 3

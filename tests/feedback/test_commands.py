"""`medgen feedback` as a person uses it, at a real terminal where keys are pressed."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from samples import guess, pair, rated, rating, run
from typer.testing import CliRunner

from medgen.cli import app
from medgen.data.images import save_synthetic_png
from medgen.feedback.log import FeedbackLog


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A log of one run with four pictures that are there."""
    logged = run("r1", 4)
    for number, one in enumerate(logged.candidates):
        pixels = np.full((8, 8), 50 * number, dtype=np.uint8)
        one.drawn.image = str(save_synthetic_png(tmp_path / f"{number}.png", pixels))
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append_run(logged)
    log.close()
    return tmp_path / "log.sqlite"


def medgen(*arguments: str | Path, keys: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["feedback", *map(str, arguments)], input=keys)
    return result.exit_code, result.stdout, result.stderr


def test_keys_rate_skip_and_take_back(place: Path) -> None:
    code, out, err = medgen(
        "rate", "--rater", "ann", "--level", "3", "--log", place, keys="4s2uu1q"
    )
    log = FeedbackLog(place)
    first, _, third, _ = [one.image_sha256 for one in FeedbackLog(place).queue("nobody")]
    # 4 for the first, the second skipped, 2 for the third; both taken back; 1 for the first.
    assert [(one.image_sha256, one.rating) for one in log.ratings()] == [(first, 1)]
    rows = log.ratings(history=True)
    assert [(one.image_sha256, one.rating, one.withdrawn) for one in rows] == [
        (first, 4, False),
        (third, 2, False),
        (third, 2, True),
        (first, 4, True),
        (first, 1, False),
    ]
    assert all(one.blinded and one.expert_level == 3 and one.source == "human" for one in rows)
    assert (code, out) == (0, "1 rated, 3 left\n")
    assert log.queue("ann")[0].image_path in err, "the picture's path is shown"
    assert "confirmed" not in err, "the verdict is not"


def test_a_session_goes_on_where_the_last_one_ended(place: Path) -> None:
    medgen("rate", "--rater", "ann", "--log", place, keys="12")
    _, out, _ = medgen("rate", "--rater", "ann", "--log", place, "--json", keys="3 4 5 5")
    assert json.loads(out) | {"log": ""} == {
        "log": "",
        "rater": "ann",
        "rated": 2,
        "left": 0,
        "missing": 0,
    }
    assert [one.rating for one in FeedbackLog(place).ratings()] == [1, 2, 3, 4]


def test_a_picture_that_is_gone_is_told_and_not_asked_for(place: Path) -> None:
    gone = FeedbackLog(place).queue("ann")[0]
    Path(gone.image_path).unlink()
    _, out, err = medgen("rate", "--rater", "ann", "--log", place, "--scale", "3", keys="453")
    (said,) = FeedbackLog(place).ratings()
    assert (said.rating, said.scale) == (3, 3), "4 and 5 are no keys of that scale"
    assert said.image_sha256 != gone.image_sha256
    assert "1 images are no longer there" in err
    assert out == "1 rated, 2 left\n"


def test_nothing_is_lost_when_the_terminal_is_interrupted(place: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        arguments = ["feedback", "rate", "--rater", "ann", "--log", str(place)]
        os.execv(sys.executable, [sys.executable, "-m", "medgen.cli", *arguments])
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 4096)

    def press(key: bytes) -> None:
        """Keys pressed before a key is asked for are thrown away, so wait for that."""
        deadline = time.monotonic() + 60
        while termios.tcgetattr(terminal)[3] & termios.ICANON:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.write(terminal, key)

    until(b"4 left")
    press(b"5")
    until(b"3 left")
    press(b"\x03")
    until(b"1 rated")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert b"1 rated, 3 left" in shown
    assert [one.rating for one in FeedbackLog(place).ratings()] == [5]


def test_stats_count_what_counts(place: Path) -> None:
    log = FeedbackLog(place)
    one, two, *_ = log.candidates()
    log.append_labels(
        [
            rated(one, 4),
            rated(two, 2),
            rated(one, 4, rater="bob", expert_level=3),
            rated(two, 2, rater="bob", expert_level=3),
            rated(two, 5, rater="robot", source="simulated"),
            rating("gone", 1, rater="ann"),
            rating("gone", 2, rater="ann"),
            pair("a", "b"),
            guess("a"),
        ]
    )
    code, out, _ = medgen("stats", "--log", place, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["runs"], told["candidates"], told["chosen"], told["ratings"]) == (1, 4, 1, 6)
    assert (told["pairs"], told["guesses"], told["replaced"]) == (1, 1, 1)
    assert told["by_source"] == {"human": 7, "simulated": 1}
    assert told["by_rating"] == {"2 of 5": 3, "4 of 5": 2, "5 of 5": 1}
    assert told["by_expert_level"] == {"3": 2, "unknown": 4}
    assert [(one["source"], one["alpha"]) for one in told["agreement"]] == [
        ("human", 1.0),
        ("simulated", None),
    ]
    assert any("no longer there" in line for line in told["notes"])
    _, shown, _ = medgen("stats", "--log", place)
    assert "alpha 1.00" in shown and "simulated: 1" in shown


def test_what_cannot_be_learned_from_is_said(place: Path) -> None:
    log = FeedbackLog(place)
    assert "no ratings yet" in log.stats().notes[0]
    log.append_labels([rated(one, 3) for one in log.candidates()])
    notes = " ".join(log.stats().notes)
    assert "all ratings are equal" in notes and "one person rated (ann)" in notes
    log.append_labels([log.withdraw(one) for one in log.ratings()])
    log.append_labels([rated(one, 3, "robot", source="simulated") for one in log.candidates()])
    assert any("no person rated" in line for line in log.stats().notes)


def test_a_log_goes_out_and_comes_back_whole(place: Path, tmp_path: Path) -> None:
    log = FeedbackLog(place)
    one, two, *_ = log.candidates()
    log.append_labels([rated(one, 4, comment="a\u2028b\n"), pair("a", "b"), guess("a")])
    log.withdraw(log.ratings()[0])
    log.append_rating(rated(two, 5))
    assert medgen("export", tmp_path / "all.jsonl", "--log", place)[0] == 0
    for added in (1 + 4 + 3 + 2, 0):
        code, out, _ = medgen("import", tmp_path / "all.jsonl", "--log", tmp_path / "b", "--json")
        assert (code, json.loads(out)["added"]) == (0, added)
    copy = FeedbackLog(tmp_path / "b")
    assert copy.ratings(history=True) == log.ratings(history=True)
    assert (copy.runs(), copy.candidates(), copy.ratings()) == (
        log.runs(),
        log.candidates(),
        log.ratings(),
    )
    assert (copy.pairs(), copy.guesses()) == (log.pairs(), log.guesses())


def test_the_table_of_ratings_can_be_read_back(place: Path, tmp_path: Path) -> None:
    log = FeedbackLog(place)
    one, two, *_ = log.candidates()
    log.append_labels([rated(one, 4, expert_level=2, comment='"so, so"'), rated(two, 1)])
    assert medgen("export", tmp_path / "ratings.csv", "--log", place)[0] == 0
    medgen("import", tmp_path / "ratings.csv", "--log", tmp_path / "b")

    def said(where: FeedbackLog) -> list[tuple[object, ...]]:
        return [
            (one.image_path, one.rating, one.scale, one.rater, one.expert_level, one.comment)
            for one in where.ratings()
        ]

    assert said(FeedbackLog(tmp_path / "b")) == said(log)


def test_no_cell_of_the_table_is_a_formula(place: Path, tmp_path: Path) -> None:
    log = FeedbackLog(place)
    log.append_labels([rated(log.candidates()[0], 4, comment='=HYPERLINK("http://x")')])
    medgen("export", tmp_path / "ratings.csv", "--log", place)
    with (tmp_path / "ratings.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert '\'=HYPERLINK("http://x")' in cells
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "--log", "nowhere.sqlite"], "no feedback log at"),
        (["rate", "--rater", "ann", "--log", "nowhere.sqlite"], "no feedback log at"),
        (["rate", "--rater", "ann", "--scale", "4", "--log", "LOG"], "use 3 or 5"),
        (["rate", "--rater", " ", "--log", "LOG"], "--rater"),
        (["export", "ratings.txt", "--log", "LOG"], "no known ending"),
        (["export", "LOG", "--log", "LOG"], "is there already"),
        (["import", "nowhere.csv", "--log", "LOG"], "no table at"),
        (["import", "LINES", "--log", "LOG"], "line 2 is no record"),
        (["stats"], "MEDGEN_FEEDBACK=off"),
    ],
)
def test_bad_input_is_one_line(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = tmp_path / "lines.jsonl"
    lines.write_text('\n{"kind": "run"}\n')
    given = [{"LOG": str(place), "LINES": str(lines)}.get(one, one) for one in arguments]
    before = {one.name for one in tmp_path.iterdir()}
    code, out, err = medgen(*given)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    after = {one.name for one in tmp_path.iterdir()}
    assert after - {"log.sqlite-wal", "log.sqlite-shm"} == before
    assert FeedbackLog(place).count("labels") == 0

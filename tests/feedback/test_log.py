"""What goes into a log comes out of it, on both databases, and nothing in it ever changes."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from samples import candidate, guess, image, pair, rated, rating, run

from medgen.errors import BadInput, MedgenError
from medgen.feedback.log import FeedbackLog, configured_log
from medgen.feedback.schema import MIGRATIONS, VERSION
from medgen.settings import settings


def test_every_record_comes_back_as_it_was(open_log: Callable[[], FeedbackLog]) -> None:
    logged = run("r1")
    said = rating(
        "a", 2, scale=3, expert_level=2, comment='“soft”, O\'Neil; DROP TABLE "labels"?%s\n次',
        finding_flags={"cardiomegaly": "confirmed"}, blinded=True, seconds=4.2,
    )  # fmt: skip
    first = open_log()
    assert first.append_run(logged) == 4
    first.append_rating(said)
    first.append_pair(pair("a", "b"))
    first.append_guess(guess("a"))

    log = open_log()
    assert log.runs() == [logged.model_copy(update={"candidates": []})]
    assert log.candidates() == logged.candidates
    assert log.ratings() == [said]
    assert (log.pairs()[0].winner, log.guesses()[0].truth) == (image("a"), "synthetic")


def test_a_run_said_twice_is_logged_once(log: FeedbackLog) -> None:
    assert [log.append_run(run("r1")) for _ in range(2)] == [4, 0]
    assert log.append_candidate(candidate("r1", 0)) == 0
    assert log.append_candidate(candidate("r1", 7)) == 1
    assert len(log.candidates(run="r1")) == 4
    assert log.candidates(run="r2") == []


def test_a_label_sent_twice_is_logged_once(log: FeedbackLog) -> None:
    said = rating("a")
    assert [log.append_rating(said) for _ in range(2)] == [1, 0]
    assert len(log.ratings(history=True)) == 1


def test_the_newest_label_of_a_rater_counts(log: FeedbackLog) -> None:
    log.append_labels([rating("a", 2), rating("a", 5), rating("a", 3, rater="bob")])
    assert [(one.rater, one.rating) for one in log.ratings()] == [("ann", 5), ("bob", 3)]
    assert len(log.ratings(history=True)) == 3
    log.append_labels([rating("a", 1, prompt="normal heart, chest X-ray")])
    assert len(log.ratings(rater="ann")) == 2, "another prompt is another question"
    log.append_labels([pair("a", "b"), pair("b", "a")])
    assert [one.winner for one in log.pairs()] == [image("b")]


def test_the_newest_is_told_by_the_time_given_not_by_the_order_of_arrival(
    log: FeedbackLog,
) -> None:
    early = datetime(2026, 1, 1, 12, tzinfo=UTC)
    elsewhere = datetime.fromisoformat("2026-01-01T12:30:00+02:00")  # before `early`
    log.append_labels([rating("a", 4, created=early)])
    log.append_labels([rating("a", 1, created=elsewhere)])
    log.append_labels([rating("b", 4, created=early)])
    log.append_labels([rating("b", 2, created=early + timedelta(microseconds=1))])
    assert [one.rating for one in log.ratings()] == [4, 2]


def test_a_withdrawn_label_is_gone_but_not_lost(log: FeedbackLog) -> None:
    log.append_run(run("r1", 2))
    one, other = log.queue("ann")
    said = rated(one, 4)
    log.append_rating(said)
    log.withdraw(said)
    assert log.ratings() == []
    assert [row.withdrawn for row in log.ratings(history=True)] == [False, True]
    assert log.queue("ann") == [one, other]
    log.append_rating(rated(one, 2))
    assert [row.rating for row in log.ratings()] == [2]


def test_labels_by_source_rater_and_modality(log: FeedbackLog) -> None:
    log.append_labels(
        [
            rating("a"),
            rating("b", source="simulated", rater="robot"),
            rating("c", modality="Brain MRI"),
        ]
    )
    assert [one.image_path for one in log.ratings(source="simulated")] == ["/b.png"]
    assert [one.image_path for one in log.ratings(rater="ann")] == ["/a.png", "/c.png"]
    assert len(log.ratings(source="human", modality="Brain MRI")) == 1


def test_the_queue_has_each_unrated_image_once_in_an_order_that_stays(log: FeedbackLog) -> None:
    log.append_run(run("r1", 4))
    log.append_run(run("r2", 2, modality="Brain MRI"))
    log.append_candidate(candidate("r1", 0).model_copy(update={"run": "r1-again"}))  # same image
    queue = log.queue("ann")
    assert len(queue) == 6
    assert [one.image_sha256 for one in queue] == sorted(one.image_sha256 for one in queue)
    log.append_rating(rated(queue[2], 3))
    assert log.queue("ann") == [*queue[:2], *queue[3:]]
    assert log.queue("bob") == queue
    assert log.queue("bob", limit=2) == queue[:2]
    assert {one.run for one in log.queue("bob", modality="Brain MRI")} == {"r2"}
    assert len(log.queue("ann", run="r1", modality="Chest X-ray")) in (3, 4)


def test_candidates_with_a_label(log: FeedbackLog) -> None:
    log.append_run(run("r1", 5))
    one, two, three, *_ = log.candidates()
    log.append_rating(rated(one, 3))
    choice = pair("x", "y").model_copy(
        update={"winner": two.image_sha256, "loser": three.image_sha256}
    )
    log.append_pair(choice)
    assert log.candidates(rated=True) == [one, two, three]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE labels SET rater = 'nobody'",
        "DELETE FROM labels",
        "UPDATE candidates SET chosen = 1",
        "DELETE FROM candidates WHERE run = 'r1'",
        "UPDATE runs SET record = ''",
        "DELETE FROM runs",
    ],
)
def test_no_row_can_be_changed_or_removed(place: str, log: FeedbackLog, statement: str) -> None:
    log.append_run(run("r1"))
    log.append_rating(rating("a"))
    with pytest.raises(Exception, match="append-only"):
        execute(place, statement)
    assert (len(log.ratings()), len(log.candidates()), len(log.runs())) == (1, 3, 1)


def execute(place: str, statement: str) -> None:
    if place.startswith("postgresql"):
        import psycopg

        with psycopg.connect(place) as connection:
            connection.execute(statement)
    else:
        with sqlite3.connect(place) as connection:
            connection.execute(statement)


def test_all_or_nothing(log: FeedbackLog, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = rating("b").model_copy(update={"rater": None})  # the column may not be null
    with pytest.raises(MedgenError):
        log.append_labels([rating("a"), broken])
    assert log.ratings() == []
    assert log.append_rating(rating("c")) == 1


def test_threads_share_one_log(log: FeedbackLog) -> None:
    def rate(rater: str) -> None:
        for number in range(25):
            log.append_rating(rating(number, rater=rater))

    threads = [threading.Thread(target=rate, args=(f"rater {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.ratings()) == 100


def test_a_log_of_a_newer_medgen_is_left_alone(
    place: str, open_log: Callable[[], FeedbackLog]
) -> None:
    open_log().append_rating(rating("a"))
    execute(place, f"INSERT INTO feedback_schema VALUES ({VERSION + 1})")
    with pytest.raises(BadInput, match="update medgen"):
        open_log().append_rating(rating("b"))


def test_an_older_log_is_brought_up_to_date(
    open_log: Callable[[], FeedbackLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medgen.feedback import database, postgres, sqlite

    open_log().append_rating(rating("a"))
    newer = (*MIGRATIONS, ("ALTER TABLE runs ADD COLUMN adapter TEXT",))
    monkeypatch.setattr(database, "MIGRATIONS", newer)
    for module in (database, sqlite, postgres):
        monkeypatch.setattr(module, "VERSION", len(newer))
    log = open_log()
    log.append_run(run("r1"))
    assert len(log.ratings()) == 1
    assert log._database.select("SELECT adapter FROM runs") == [(None,)]


def test_a_label_that_makes_no_sense_is_refused() -> None:
    for bad in ({"value": 4, "scale": 3}, {"value": 0}, {"expert_level": 4}, {"rater": " "}):
        with pytest.raises(ValidationError):
            rating("a", **bad)
    with pytest.raises(ValidationError, match="same image"):
        pair("a", "a")
    with pytest.raises(ValidationError):
        rating("a", created=datetime(2026, 1, 1))  # whose noon?


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image_path,rating\n" * 400, "no log"),
        (b"SQLite format 3\x00" + b"\x01" * 4096, "damaged"),
    ],
)
def test_a_file_that_is_no_log_is_one_clear_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        FeedbackLog(path).ratings()
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(BadInput, match="another program"):
        FeedbackLog(path).append_rating(rating("a"))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_held_log_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    FeedbackLog(path).append_rating(rating("a"))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(MedgenError, match=r"locked for 0\.1 s"):
        FeedbackLog(path, timeout=0.1).append_rating(rating("b"))
    assert len(FeedbackLog(path).ratings()) == 1, "readers do not wait for a writer"
    holder.execute("ROLLBACK")


def test_a_password_stays_out_of_messages() -> None:
    log = FeedbackLog("postgresql://user:secret@127.0.0.1:1/log?sslmode=disable", timeout=1)
    pytest.importorskip("psycopg", reason="PostgreSQL log: psycopg is not installed")
    with pytest.raises(MedgenError) as caught:
        log.ratings()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1/log" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("password", ["se/cret", "se@cret", "se?cret"])
def test_a_password_stays_out_of_the_name_whatever_is_in_it(password: str) -> None:
    log = FeedbackLog(f"postgresql://user:{password}@127.0.0.1:1/log")
    assert log.name == "postgresql://127.0.0.1:1/log"


def test_a_full_disk_says_so_and_adds_nothing(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.append_rating(rating("a"))
    (pages,) = log._database.select("PRAGMA page_count")[0]
    log._database.select(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(MedgenError, match="full"):
        log.append_labels([rating(str(n), comment="x" * 3000) for n in range(50)])
    assert [one.image_sha256 for one in log.ratings()] == [image("a")]
    assert gc.isenabled(), "reading leaves the collector as it was"


def test_where_the_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDGEN_FEEDBACK")
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    found = configured_log()
    assert found is not None and found.name == str(tmp_path / "feedback.sqlite")
    monkeypatch.setenv("MEDGEN_FEEDBACK", "off")
    settings.cache_clear()
    assert configured_log() is None
    with pytest.raises(BadInput, match="off"):
        FeedbackLog()
    with pytest.raises(BadInput, match="postgresql://"):
        FeedbackLog("mysql://somewhere/log")
    settings.cache_clear()

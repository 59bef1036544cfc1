"""A rater's work: each answer in the log, none twice, none lost, and nothing given away."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from studios import Place

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.studio.files import Pictures
from medgen.studio.questions import to_compare, to_rate, to_tell_apart
from medgen.studio.rate import stage_html
from medgen.studio.rating import Desk, Item, Subject

MODALITY = "Chest X-ray"


@pytest.fixture
def log(tmp_path: Path, place: Place) -> FeedbackLog:
    """A log of its own with the runs of all tests in it."""
    own = FeedbackLog(tmp_path / "log.sqlite")
    by_run: dict[str, list] = {}  # type: ignore[type-arg]
    for candidate in place.log.candidates():
        by_run.setdefault(candidate.run, []).append(candidate)
    for run in place.log.runs():
        own.append_run(run.model_copy(update={"candidates": by_run[run.run]}))
    return own


def desk_of(log: FeedbackLog, items: list[Item], rater: str = "ada", **more) -> Desk:  # type: ignore[no-untyped-def]
    return Desk(log, Pictures(), more.pop("task", "rating"), rater, 3, items, **more)


def test_an_answer_is_in_the_log_before_the_next_picture(log: FeedbackLog) -> None:
    desk = desk_of(log, to_rate(log, "ada", None, 3))
    first = desk.shown
    assert first is not None
    finding = first.item.findings[0][0]
    flags = {finding: "contradicted", "never asked": "confirmed"}
    assert desk.answer({"item": first.name, "value": "4", "flags": flags, "comment": "soft"})
    (rating,) = log.ratings()
    assert (rating.rating, rating.rater, rating.source) == (4, "ada", "human")
    assert (rating.expert_level, rating.blinded, rating.comment) == (3, True, "soft")
    assert rating.finding_flags == {finding: "contradicted"}
    assert rating.image_sha256 == first.item.subjects[0].sha256
    assert desk.shown is not None and desk.shown.name != first.name


def test_a_key_pressed_twice_rates_one_picture(log: FeedbackLog) -> None:
    desk = desk_of(log, to_rate(log, "ada", None, 3))
    assert desk.shown is not None
    given = {"item": desk.shown.name, "value": "5"}
    assert desk.answer(given)
    assert not desk.answer(given)
    assert len(log.ratings()) == 1


@pytest.mark.parametrize("value", ["0", "6", "left", None, [], {"a": 1}, "1.5"])
def test_what_is_no_answer_is_refused_and_the_picture_stays(
    log: FeedbackLog, value: object
) -> None:
    desk = desk_of(log, to_rate(log, "ada", None, 2))
    shown = desk.shown
    assert shown is not None
    with pytest.raises(BadInput, match="no answer"):
        desk.answer({"item": shown.name, "value": value})
    with pytest.raises(BadInput, match="no answer"):
        desk.answer({"item": shown.name, "value": 3, "flags": {shown.item.findings[0][0]: "x"}})
    assert desk.shown is shown and log.ratings() == []


def test_taking_back_withdraws_and_asks_again(log: FeedbackLog) -> None:
    desk = desk_of(log, to_rate(log, "ada", None, 2))
    first, total = desk.shown, desk.total
    assert first is not None and not desk.back()
    desk.answer({"item": first.name, "value": 2})
    assert desk.back()
    assert log.ratings() == [] and len(log.ratings(history=True)) == 2
    assert desk.shown is not None and desk.shown.item is first.item
    desk.answer({"item": desk.shown.name, "value": 5})
    assert [one.rating for one in log.ratings()] == [5]
    assert desk.done == 1 and desk.total == total


def test_a_rater_who_comes_back_goes_on_where_they_were(log: FeedbackLog) -> None:
    desk = desk_of(log, to_rate(log, "ada", None, 5))
    for _ in range(2):
        assert desk.shown is not None
        desk.answer({"item": desk.shown.name, "value": 3})
    assert desk.shown is not None
    left = desk.shown.item.subjects
    again = desk_of(log, to_rate(log, "ada", None, 5))
    assert again.shown is not None and again.shown.item.subjects == left
    other = desk_of(log, to_rate(log, "bob", None, 5), "bob")
    assert other.shown is not None and other.shown.item.subjects != left


def test_pairs_are_of_one_prompt_and_asked_once(log: FeedbackLog) -> None:
    items = to_compare(log, "ada", MODALITY, 50)
    assert items
    drawn = {one.image_sha256: one.prompt for one in log.candidates()}
    for item in items:
        left, right = item.subjects
        assert drawn[left.sha256] == drawn[right.sha256] == item.prompt
        assert left.sha256 != right.sha256
    desk = desk_of(log, items[:1], task="pair")
    assert desk.shown is not None
    desk.answer({"item": desk.shown.name, "value": "right"})
    (pair,) = log.pairs()
    assert pair.winner == items[0].subjects[1].sha256
    assert len(to_compare(log, "ada", MODALITY, 50)) == len(items) - 1


def test_the_blinded_test_gives_nothing_away(log: FeedbackLog, place: Place) -> None:
    items, side = to_tell_apart(log, "ada", MODALITY, place.real, 10)
    truths = [one.subjects[0].run is None for one in items]
    assert truths.count(True) == truths.count(False) == 5
    pictures = Pictures()
    desk = Desk(log, pictures, "real", "ada", None, items, side)
    right = 0
    while desk.shown is not None:
        shown, told = desk.shown, stage_html(desk)
        (subject,) = shown.item.subjects
        for secret in (subject.path, subject.sha256, Path(subject.path).name, subject.run):
            assert secret is None or secret not in told
        assert ">synthetic<" not in told.replace("</kbd> synthetic<", "")
        image = Image.open(io.BytesIO(pictures.png(shown.pictures[0])))
        assert image.size == (side, side) and image.mode == "RGB" and image.info == {}
        desk.answer({"item": shown.name, "value": "real"})
        right += subject.run is None
    guesses = log.guesses()
    assert sum(one.guess == one.truth for one in guesses) == right == 5
    assert "5 of 10 right" in stage_html(desk)


def test_names_of_pictures_are_random_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    pictures = Pictures(kept=2)
    first, second, third = (pictures.name(path) for _ in range(3))
    assert len({first, second, third}) == 3
    assert pictures.png(third)
    with pytest.raises(KeyError):
        pictures.png(first)


def test_a_stage_escapes_what_people_wrote(log: FeedbackLog) -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    subject = Subject("x.png", "0" * 64, "run", "one")
    item = Item((subject,), hostile, MODALITY, ((hostile, hostile),))
    told = stage_html(desk_of(log, [item], rater=hostile))
    assert "<img src=x" not in told


@pytest.mark.parametrize("name", ["", "   ", "x" * 81])
def test_raters_need_a_name(log: FeedbackLog, name: str) -> None:
    with pytest.raises(BadInput, match="name"):
        desk_of(log, [], rater=name)

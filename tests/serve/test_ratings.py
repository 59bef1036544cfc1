"""Ratings over HTTP end in the feedback log, once, under the image's own name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from phantom_server import PROMPT

from medgen.data.images import pixel_sha256
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import Rating
from medgen.settings import settings


@pytest.fixture
def without_log() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_FEEDBACK", "off")
        settings.cache_clear()
        yield
    settings.cache_clear()


def rate(client: TestClient, finished: dict[str, Any], **body: Any) -> Any:
    rating = {"run": finished["run_id"], "image": "image.png", "rater": "A", "rating": 4, **body}
    headers = {"Content-Type": "application/json"}
    return client.post("/ratings", content=json.dumps(rating), headers=headers)


def logged() -> list[Rating]:
    log = FeedbackLog(settings().feedback)
    try:
        return log.ratings(history=True)
    finally:
        log.close()


def test_a_rating_is_in_the_log_when_the_answer_comes(
    client: TestClient, finished: dict[str, Any]
) -> None:
    before = len(logged())
    flags = {"cardiomegaly": "confirmed"}
    answer = rate(client, finished, comment="clear", expert_level=3, finding_flags=flags)
    assert answer.status_code == 201 and answer.json()["added"] is True
    (rating,) = logged()[before:]
    folder = Path(client.app.state.jobs.runs) / finished["run_id"]  # type: ignore[attr-defined]
    assert (rating.prompt, rating.modality, rating.source) == (PROMPT, "Chest X-ray", "human")
    assert (rating.rating, rating.scale, rating.comment) == (4, 5, "clear")
    assert rating.image_sha256 == pixel_sha256(folder / "image.png")
    assert rating.candidate == finished["result"]["results"][0]["candidate"]
    assert rating.finding_flags == flags and rating.run == finished["run_id"]
    shown = answer.json()["rating"]
    assert shown["image_path"] == finished["images"][0] and shown["id"] == rating.id


def test_the_control_is_rated_as_itself(client: TestClient, finished: dict[str, Any]) -> None:
    name = Path(finished["result"]["control"]["image"]).name
    assert rate(client, finished, image=name).status_code == 201
    assert logged()[-1].candidate == Path(name).stem


def test_a_rating_sent_twice_counts_once(client: TestClient, finished: dict[str, Any]) -> None:
    before = len(logged())
    answers = [rate(client, finished, id="once").json()["added"] for _ in range(2)]
    assert answers == [True, False] and len(logged()) == before + 1


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"rating": 0}, 422),
        ({"rating": 4, "scale": 3}, 422),
        ({"rater": " "}, 422),
        ({"rater": "a\ud800"}, 422),
        ({"image": "../request.json"}, 422),
        ({"image": "nowhere.png"}, 404),
        ({"run": "20200101-000000-000000-00000000"}, 404),
        ({"finding_flags": {"cardiomegaly": "maybe"}}, 422),
        ({"finding_flags": {str(number): "abstain" for number in range(65)}}, 422),
        ({"comment": "a" * 2001}, 422),
        ({"source": "verifier"}, 422),
    ],
)
def test_what_is_no_rating_is_not_written(
    client: TestClient, finished: dict[str, Any], wrong: dict[str, Any], status: int
) -> None:
    before = len(logged())
    answer = rate(client, finished, **wrong)
    assert answer.status_code == status, answer.text
    assert "\n" not in answer.json()["detail"]
    assert len(logged()) == before


def test_without_a_log_a_rating_is_refused(
    client: TestClient, finished: dict[str, Any], without_log: None
) -> None:
    answer = rate(client, finished)
    assert answer.status_code == 422 and "keeps no ratings" in answer.json()["detail"]

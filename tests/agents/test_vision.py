"""The vision model as a member of the panel: through a real client and a server of the test's."""

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgen.agents.chat_model import PICTURE_TOKENS, estimated_tokens
from medgen.agents.llm import conversation
from medgen.agents.verifier import Abstain, Measured
from medgen.agents.verifier.cards import rules
from medgen.agents.verifier.evidence import Evidence
from medgen.agents.verifier.panel import judge
from medgen.agents.verifier.vision import ImageReading, VisionCheck
from medgen.records import Finding, Measurement, Plan
from medgen.settings import Settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chat_server import ChatServer

IMAGE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
PLAN = Plan(
    prompt="glioma, no meningioma",
    modality="Brain MRI",
    findings=[Finding(finding="glioma"), Finding(finding="meningioma", status="absent")],
)


def sighting(finding, visible="yes", confidence=0.9):
    return {
        "finding": finding,
        "visible": visible,
        "confidence": confidence,
        "reason": "A bright mass lies at the image's left.",
    }


@pytest.fixture
def server():
    server = ChatServer(lambda _: {"sightings": [sighting("glioma"), sighting("meningioma", "no")]})
    yield server
    server.close()


@pytest.fixture
def check(server, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    options = Settings(vision_llm="openai:eyes", llm_cache=tmp_path / "cache", llm_timeout=10)
    return VisionCheck(options)


class Says:
    """A measuring member with a fixed answer."""

    name = "ruler"
    holds = False

    def __init__(self, probability):
        self.probability = probability

    def covers(self, modality, finding):
        return True

    def judge(self, evidence, finding, plan):
        return Measured(
            [Measurement(name="a", value=1.0, check="ruler")], self.probability, weight=0.8
        )


def ask(check, finding=PLAN.findings[0], plan=PLAN, image=IMAGE):
    return check.judge(Evidence(image, None), finding, plan)


def test_model_sees_the_very_picture_once_for_all_findings(server, check) -> None:
    evidence = Evidence(IMAGE, None)
    glioma, meningioma = (check.judge(evidence, one, PLAN) for one in PLAN.findings)
    assert isinstance(glioma, Measured) and glioma.advisory
    assert glioma.probability == rules().vision.most_sure
    assert meningioma.probability == rules().vision.most_sure  # absent as asked
    (asked,) = server.asked
    words, picture = asked.messages[1]["content"]
    assert '"glioma", "meningioma"' in words["text"]
    encoded = picture["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))), IMAGE)


def test_opinion_alone_decides_nothing(check) -> None:
    judged = judge(Evidence(IMAGE, None), PLAN.findings[0], PLAN, [check])
    assert judged.finding.verdict == "abstain" and judged.probability == 0.5
    assert judged.finding.measurements[0].value == rules().vision.most_sure
    assert any("an opinion decides nothing" in line for line in judged.abstentions)


def test_opinion_against_a_measurement_is_shown_and_outweighed(check) -> None:
    judged = judge(Evidence(IMAGE, None), PLAN.findings[0], PLAN, [Says(0.05), check])
    assert judged.finding.verdict == "contradicted"
    assert judged.disagreements == [
        "glioma: members disagree (as asked: ruler 0.05, vision model 0.85)"
    ]
    agreeing = judge(Evidence(IMAGE, None), PLAN.findings[0], PLAN, [Says(0.95), check])
    assert agreeing.finding.verdict == "confirmed" and agreeing.disagreements == []


def test_unsure_and_wrong_answers_abstain(server, check) -> None:
    server.answering = lambda _: {
        "sightings": [sighting("glioma", "unsure"), sighting("meningioma")]
    }
    answer = ask(check)
    assert isinstance(answer, Abstain) and "unsure" in answer.reason
    server.answering = lambda _: {"sightings": [sighting("pancake")]}
    other = np.zeros((256, 256, 3), np.uint8)
    answer = ask(check, image=other)
    assert isinstance(answer, Abstain) and "unusable answers" in answer.reason


def test_server_that_fails_makes_it_abstain_and_not_crash(server, check) -> None:
    server.fault = 401
    answer = ask(check)
    assert isinstance(answer, Abstain) and "refuses the key" in answer.reason


def test_picture_counts_as_tokens_and_not_by_its_bytes() -> None:
    small, large = (
        estimated_tokens(conversation("vision", {"asked": []}, ImageReading, b"x" * size))
        for size in (10, 100_000)
    )
    without = estimated_tokens(conversation("vision", {"asked": []}, ImageReading))
    assert small == large == without + PICTURE_TOKENS

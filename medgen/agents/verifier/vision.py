"""A vision language model as a member of the panel: asked once an image, never deciding alone.

Its answers come as a record through the language model's session, with its budget, cache and
retries. How well it reads medical images has not been measured here, so its word counts little
beside a measurement and nothing without one; where it contradicts a measurement that is shown.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from io import BytesIO
from typing import Literal

from PIL import Image
from pydantic import Field

from medgen.agents.chat_model import LONGEST_LIST, ChatModel
from medgen.agents.llm import AnswerCache, Session, Unusable, cache_folder
from medgen.agents.verifier.cards import rules
from medgen.agents.verifier.checks import Abstain, Measured
from medgen.agents.verifier.evidence import Evidence
from medgen.records import AgeGroup, Finding, Measurement, Plan, Record
from medgen.settings import Settings

SIDE = 256
KEPT = 16


class Sighting(Record):
    """What the model says of one finding."""

    finding: str = Field(max_length=200)
    visible: Literal["yes", "no", "unsure"]
    confidence: float = Field(ge=0, le=1)
    reason: str = Field(max_length=400)


class ImageReading(Record):
    """What the model says of one image."""

    sightings: list[Sighting] = Field(max_length=LONGEST_LIST)


class VisionCheck:
    """The member: a model that sees pictures, named by `MEDGEN_VISION_LLM`."""

    name = "vision model"
    holds = False

    def __init__(self, options: Settings) -> None:
        """Name the model; it is made when first asked.

        Args:
            options: `vision_llm` and the language model's budget, timeout and cache.
        """
        self._options = options.model_copy(update={"llm": options.vision_llm})
        self._answers: OrderedDict[tuple[int, tuple[str, ...]], tuple[Evidence, object]] = (
            OrderedDict()
        )

    @cached_property
    def _model(self) -> ChatModel:
        return ChatModel(self._options)

    def covers(self, modality: str, finding: str) -> bool:
        """Everything: what it says of it counts only beside a measurement."""
        return True

    def decides(self, modality: str, finding: str, population: AgeGroup | None) -> bool:
        """Never alone."""
        return False

    def judge(self, evidence: Evidence, finding: Finding, plan: Plan) -> Measured | Abstain:
        """What the model says of the finding, as an advisory answer."""
        reading = self._read(evidence, finding, plan)
        if isinstance(reading, str):
            return Abstain(self.name, reading)
        seen = next(one for one in reading.sightings if one.finding == finding.finding)
        if seen.visible == "unsure":
            return Abstain(self.name, f"unsure: {seen.reason}")
        shown = 0.5 + seen.confidence / 2 if seen.visible == "yes" else 0.5 - seen.confidence / 2
        card = rules().vision
        shown = min(max(shown, 1 - card.most_sure), card.most_sure)
        present = finding.status == "present"
        measurement = Measurement(
            name=f"{finding.finding} seen by the vision model",
            value=round(shown, 4),
            unit="probability as told",
            check=f"{self.name} ({self._options.vision_llm})",
            accuracy=card.accuracy,
        )
        probability = shown if present else 1 - shown
        return Measured([measurement], probability, card.weight, advisory=True)

    def _read(self, evidence: Evidence, finding: Finding, plan: Plan) -> ImageReading | str:
        """The model's reading, asked once for all findings of a plan; or why there is none."""
        names = [one.finding for one in plan.findings] or [finding.finding]
        names = list(dict.fromkeys(names))[:LONGEST_LIST]
        if finding.finding not in names:
            return f"asked of the first {LONGEST_LIST} findings alone"
        key = (id(evidence), tuple(names))
        if key not in self._answers:
            self._answers[key] = (evidence, self._ask(evidence, names, plan.modality))
            while len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        answer = self._answers[key][1]
        assert isinstance(answer, ImageReading | str)
        return answer

    def _ask(self, evidence: Evidence, names: list[str], modality: str) -> ImageReading | str:
        def complete(reading: ImageReading) -> None:
            told = [one.finding for one in reading.sightings]
            if sorted(told) != sorted(names):
                raise Unusable(f"sightings must name exactly {', '.join(names)}")

        session = Session(
            self._model, self._options, cache=AnswerCache(cache_folder(self._options))
        )
        outcome = session.ask(
            "vision",
            {"modality": modality, "asked": names},
            ImageReading,
            complete,
            picture=picture_of(evidence),
        )
        return outcome.answer if outcome.answer is not None else outcome.decided_by


def picture_of(evidence: Evidence) -> bytes:
    """The image as a small PNG."""
    image = Image.fromarray(evidence.image)
    if image.width > SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()

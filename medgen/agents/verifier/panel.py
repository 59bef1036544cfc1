"""The panel: asks every registered check, pools their answers, and writes one critique.

It verifies against the plan made from the user's own words; prompts refined for the generator
never reach it. No member decides alone what another contradicts: probabilities are pooled by how
well each member does on real images, and all measurements stay visible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from medgen import measure
from medgen.agents.verifier.cards import reader_card, rules
from medgen.agents.verifier.checks import (
    Abstain,
    CardiothoracicCheck,
    Check,
    Measured,
    OpacityCheck,
    ReaderCheck,
)
from medgen.agents.verifier.evidence import Evidence
from medgen.errors import BadInput
from medgen.measure.chest import bundled_segmenter
from medgen.measure.clip import alignment, concepts
from medgen.measure.memorisation import bundled_index
from medgen.measure.reader import MODALITY, Reader
from medgen.records import Correction, Critique, Finding, Measurement, Plan

MINIMUM_SIDE = 128
MADE_OF = (Path(measure.__file__).parent / "weights", Path(__file__).parent)
KINDS = (".safetensors", ".json", ".yaml")


@dataclass(frozen=True)
class Judged:
    """A finding with its verdict, and what goes into the critique beside it."""

    finding: Finding
    probability: float
    corrections: list[Correction]
    abstentions: list[str]


class Panel:
    """All checks of the verifier, with their weights loaded."""

    def __init__(self, reader: Reader, checks: Sequence[Check]) -> None:
        self._reader = reader
        self._checks = list(checks)

    @classmethod
    def load(cls) -> Panel:
        """The bundled panel; loads every member's weights but the CLIP's, which wait for use.

        Raises:
            BadInput: Weights are missing or unreadable.
        """
        bundled_segmenter()
        bundled_index()
        concepts()
        reader_card()
        return cls(Reader.load(), [CardiothoracicCheck(), OpacityCheck(), ReaderCheck()])

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over its weights, cards and rules."""
        digest = hashlib.sha256()
        for folder in MADE_OF:
            for path in sorted(folder.rglob("*")):
                if path.suffix in KINDS:
                    digest.update(path.relative_to(folder).as_posix().encode())
                    digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def covers(self, modality: str, finding: str) -> list[str]:
        """Names of the members registered for a finding of a modality."""
        return [check.name for check in self._checks if check.covers(modality, finding)]

    def verify(self, image: np.ndarray, plan: Plan, generated: bool = True) -> Critique:
        """Critique one image against what the user asked.

        Args:
            image: (H, H, 3) uint8, square, at least 128 pixels a side.
            plan: Made from the user's words; `view` and `age_group` default to adult PA.
            generated: Whether nearness to a training image rejects the image.

        Returns:
            The critique; its findings are the plan's, in order, with verdicts and measurements.

        Raises:
            BadInput: The array has another shape or type.
        """
        _require(image)
        evidence = Evidence(image, self._reader)
        rejections, abstentions = [], []
        reading = evidence.reading
        probability = reading.modality_probabilities.get(plan.modality)
        if probability is None or plan.modality not in self._modalities():
            abstentions.append(f"modality: no check knows {plan.modality}")
        elif probability < rules().modality.reject_below:
            rejections.append(
                f"read as {_a_modality(reading.modality)} "
                f"({reading.modality_probabilities[reading.modality]:.2f}), {plan.modality} asked"
            )
        quality = evidence.quality(plan.modality)
        rejections += [p for p in quality.problems if p in rules().rejecting_problems]
        nearest = evidence.nearest_training(plan.modality)
        if generated and bundled_index().too_close(nearest, plan.modality):
            rejections.append(
                f"too close to a training image (distance {nearest.distance:.3f}, nearer than "
                f"{100 - nearest.percentile:.1f} % of real held-out images)"
            )
        judged = [judge(evidence, finding, plan, self._checks) for finding in plan.findings]
        abstentions += [line for one in judged for line in one.abstentions]
        margin = self._alignment(image, plan)
        if margin is None:
            abstentions.append("image-text margin: no asked finding has a measured contrast")
        verdicts = [one.finding.verdict for one in judged]
        accepted: bool | None = None
        if rejections or "contradicted" in verdicts:
            accepted = False
        elif "confirmed" in verdicts:
            accepted = True
        critique = Critique(
            modality=reading.modality,
            modality_confidence=round(reading.modality_probabilities[reading.modality], 4),
            findings=[one.finding for one in judged],
            quality=quality,
            nearest_training=nearest,
            alignment=margin,
            rejections=rejections,
            corrections=[correction for one in judged for correction in one.corrections],
            abstentions=abstentions,
            accepted=accepted,
        )
        critique.score = _score(critique, [one.probability for one in judged], probability)
        return critique

    def _modalities(self) -> list[str]:
        head = next(head for head in self._reader.heads if head.name == MODALITY)
        return list(head.labels.values())

    @staticmethod
    def _alignment(image: np.ndarray, plan: Plan) -> Measurement | None:
        for finding in plan.findings:
            concept = concepts().get(finding.finding)
            if (
                finding.status == "present"
                and concept is not None
                and concept.modality == plan.modality
                and concept.measurable
            ):
                return alignment(
                    image, concept.text, concept.contrasts, concept.accuracy, concept.least
                )
        return None


def judge(evidence: Evidence, finding: Finding, plan: Plan, checks: Sequence[Check]) -> Judged:
    """One asked finding against one image: every registered check answers, the answers are pooled.

    Args:
        evidence: The image.
        finding: As asked; its own verdict and measurements are ignored.
        plan: The plan it belongs to.
        checks: All members; those that do not cover the finding are not asked.

    Returns:
        The finding with its verdict, the pooled probability that it is as asked (0.5 when all
        abstain), corrections unless confirmed, and what could not be measured.
    """
    asked = finding.model_copy(
        update={"verdict": "abstain", "confidence": None, "measurements": []}
    )
    if finding.status not in ("present", "absent"):
        line = f"{finding.finding}: asked as {finding.status}, which no image shows"
        return Judged(asked, 0.5, [], [line])
    members = [check for check in checks if check.covers(plan.modality, finding.finding)]
    if not members:
        return Judged(asked, 0.5, [], [f"{finding.finding}: no check for it in {plan.modality}"])
    answers = [member.judge(evidence, finding, plan) for member in members]
    abstentions = [
        f"{finding.finding}: {answer.check}: {answer.reason}"
        for answer in answers
        if isinstance(answer, Abstain)
    ]
    measured = [answer for answer in answers if isinstance(answer, Measured)]
    if not measured:
        return Judged(asked, 0.5, [], abstentions)
    abstentions += _unmeasured_parts(finding, measured)
    probability = pool(measured)
    verdict, confidence = "abstain", None
    if probability >= rules().confirm:
        verdict, confidence = "confirmed", probability
    elif probability <= rules().contradict:
        verdict, confidence = "contradicted", 1 - probability
    else:
        abstentions.append(f"{finding.finding}: within measuring error ({probability:.2f})")
    asked = asked.model_copy(
        update={
            "verdict": verdict,
            "confidence": None if confidence is None else round(confidence, 4),
            "measurements": [m for answer in measured for m in answer.measurements],
        }
    )
    corrections = (
        []
        if verdict == "confirmed"
        else [correction for answer in measured for correction in answer.corrections]
    )
    return Judged(asked, probability, corrections, abstentions)


def pool(answers: Sequence[Measured]) -> float:
    """Weighted mean of the members' log-odds, as a probability in (0, 1)."""
    odds = [float(logit(min(max(answer.probability, 0.01), 0.99))) for answer in answers]
    weights = [max(answer.weight, 1e-3) for answer in answers]
    return float(expit(np.average(odds, weights=weights)))


def _unmeasured_parts(finding: Finding, measured: Sequence[Measured]) -> list[str]:
    """The words about a finding that no member measured: side, severity, location."""
    names = {m.name for answer in measured for m in answer.measurements}
    lines = []
    if finding.side is not None and not any(name.startswith("opacity_") for name in names):
        lines.append(f"{finding.finding}: side {finding.side} not measured")
    if finding.severity is not None and "cardiothoracic_ratio" not in names:
        lines.append(f"{finding.finding}: severity {finding.severity} not measured")
    if finding.location is not None:
        lines.append(f"{finding.finding}: location {finding.location} not measured")
    return lines


def _score(critique: Critique, probabilities: list[float], modality: float | None) -> float:
    shares = rules().score
    margin = 0.5
    if critique.alignment is not None:
        least = (critique.alignment.expected or (0.0, None))[0] or 0.0
        margin = float(expit((critique.alignment.value - least) / shares.margin_scale))
    score = (
        shares.findings * (float(np.mean(probabilities)) if probabilities else 0.5)
        + shares.modality * (0.5 if modality is None else modality)
        + shares.quality * (critique.quality.score if critique.quality else 0.5)
        + shares.alignment * margin
    )
    if critique.rejections:
        score *= shares.rejected
    elif critique.accepted is False:
        score *= shares.contradicted
    return round(min(max(score, 0.0), 1.0), 4)


def _a_modality(name: str) -> str:
    return "no known modality" if name == "none" else name


def _require(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        shape = getattr(image, "shape", type(image).__name__)
        raise BadInput(
            f"the verifier needs a uint8 image of shape (H, H, 3), not {shape}: load it with "
            "medgen.data.images.load_square"
        )
    height, width, channels = image.shape
    if height != width or channels != 3 or height < MINIMUM_SIDE:
        raise BadInput(
            f"the verifier needs a square colour image of at least {MINIMUM_SIDE} pixels, not "
            f"{width}x{height}x{channels}: load it with medgen.data.images.load_square"
        )

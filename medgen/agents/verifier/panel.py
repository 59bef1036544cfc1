"""The panel: asks every registered check, pools their answers, and writes one critique.

It verifies against the plan made from the user's own words; prompts refined for the generator
never reach it. No member decides alone what another contradicts: probabilities are pooled by how
well each member does on real images, and all measurements stay visible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from medgen import measure
from medgen.agents.verifier.anatomy_checks import (
    AnatomyCheck,
    EyeSideCheck,
    anatomy_measurements,
    anatomy_rejections,
    leaves_lungs_clear,
)
from medgen.agents.verifier.cards import Limits, anatomy_figures, reader_card, rules
from medgen.agents.verifier.checks import (
    Abstain,
    CardiothoracicCheck,
    Check,
    Measured,
    OpacityCheck,
    ReaderCheck,
)
from medgen.agents.verifier.evidence import Evidence
from medgen.agents.verifier.open_clip_margin import open_clip_margin
from medgen.agents.verifier.vision import VisionCheck
from medgen.agents.verifier.xray_classifiers import XRayClassifiersCheck
from medgen.errors import BadInput
from medgen.measure.anatomy_by_modality import CHEST
from medgen.measure.chest import bundled_segmenter
from medgen.measure.clip import alignment, concepts
from medgen.measure.memorisation import bundled_index
from medgen.measure.reader import MODALITY, Reader, bundled_reader
from medgen.records import AgeGroup, Correction, Critique, Finding, Measurement, Plan
from medgen.settings import Settings, ThresholdSet, settings

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
    disagreements: list[str]


class Panel:
    """All checks of the verifier, with their weights loaded."""

    def __init__(
        self, reader: Reader, checks: Sequence[Check], thresholds: ThresholdSet = "balanced"
    ) -> None:
        """A panel of members.

        Args:
            reader: Names the modality, and serves the members that read findings.
            checks: The members.
            thresholds: How sure a verdict must be; the sets are in `panel.yaml`.
        """
        self._reader = reader
        self._checks = list(checks)
        self._limits = rules().thresholds[thresholds]
        self._aligner: str | None = None

    @classmethod
    def load(cls, options: Settings | None = None) -> Panel:
        """The bundled panel, with the optional members that the settings name.

        Loads every member's weights but the CLIP's, which wait for use.

        Args:
            options: Settings; this process's when None.

        Raises:
            BadInput: Weights are missing or unreadable.
        """
        options = options or settings()
        bundled_segmenter()
        bundled_index()
        concepts()
        reader_card()
        members: list[Check] = [
            CardiothoracicCheck(),
            OpacityCheck(),
            ReaderCheck(),
            AnatomyCheck(),
            EyeSideCheck(),
        ]
        if options.torchxrayvision is not None:
            members.append(XRayClassifiersCheck(options.torchxrayvision))
        if options.vision_llm is not None:
            members.append(VisionCheck(options))
        panel = cls(bundled_reader(), members, options.thresholds)
        panel._aligner = options.alignment
        return panel

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over its weights, cards, rules, limits and members."""
        digest = hashlib.sha256(self._limits.model_dump_json().encode())
        digest.update(
            "\n".join([*(check.name for check in self._checks), self._aligner or ""]).encode()
        )
        for folder in MADE_OF:
            for path in sorted(folder.rglob("*")):
                if path.suffix in KINDS:
                    digest.update(path.relative_to(folder).as_posix().encode())
                    digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def decides(self, modality: str, finding: str, population: AgeGroup | None = None) -> list[str]:
        """Names of the members that may settle whether a finding is there.

        Args:
            modality: A modality card's name.
            finding: A finding card's name.
            population: Whose films; None where that is not known.
        """
        return [
            check.name
            for check in self._checks
            if check.covers(modality, finding) and check.decides(modality, finding, population)
        ]

    def verify(self, image: np.ndarray, plan: Plan, generated: bool = True) -> Critique:
        """Critique one image against what the user asked.

        Args:
            image: (H, H, 3) uint8, square, at least 128 pixels a side.
            plan: Made from the user's words; `view` and `age_group` default to adult PA. One
                without prompt and findings asks nothing: then every finding that can be measured
                is told, its `status` being what was measured.
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
        rejections += anatomy_rejections(
            evidence.anatomy(plan.modality), plan.modality, leaves_lungs_clear(plan)
        )
        nearest = evidence.nearest_training(plan.modality)
        if generated and bundled_index().too_close(nearest, plan.modality):
            rejections.append(
                f"too close to a training image (distance {nearest.distance:.3f}, nearer than "
                f"{100 - nearest.percentile:.1f} % of real held-out images)"
            )
        if plan.prompt or plan.findings:
            judged = [
                judge(evidence, finding, plan, self._checks, self._limits)
                for finding in plan.findings
            ]
        elif rejections:
            judged = []
            abstentions.append("findings: not surveyed in a rejected image")
        else:
            judged = self._survey(evidence, plan)
        abstentions += [line for one in judged for line in one.abstentions]
        margin = self._alignment(image, plan)
        if margin is None:
            abstentions.append("image-text margin: no asked finding has a measured contrast")
        verdicts = [one.finding.verdict for one in judged] if plan.findings else []
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
            abstentions=abstentions + evidence.anatomy(plan.modality).missing,
            disagreements=[line for one in judged for line in one.disagreements],
            anatomy=anatomy_measurements(evidence.anatomy(plan.modality), plan.modality),
            accepted=accepted,
        )
        critique.score = _score(critique, [one.probability for one in judged], probability)
        return critique

    def _survey(self, evidence: Evidence, plan: Plan) -> list[Judged]:
        """Every finding that a member can measure: present or absent where it is sure enough."""
        told = []
        # A model that is asked costs time and money, and alone says nothing.
        checks = [check for check in self._checks if not isinstance(check, VisionCheck)]
        for name in _listed(plan.modality):
            present = Finding(finding=name)
            judged = judge(evidence, present, plan, checks, self._limits)
            if not judged.finding.measurements:
                continue
            if judged.finding.verdict == "contradicted":
                absent = Finding(finding=name, status="absent")
                judged = judge(evidence, absent, plan, checks, self._limits)
            told.append(replace(judged, corrections=[], abstentions=[]))
        return told

    def _modalities(self) -> list[str]:
        head = next(head for head in self._reader.heads if head.name == MODALITY)
        return list(head.labels.values())

    def _alignment(self, image: np.ndarray, plan: Plan) -> Measurement | None:
        if self._aligner is not None:
            return open_clip_margin(image, plan, self._aligner)
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


def _listed(modality: str) -> list[str]:
    """Names of all findings that some member is registered for in a modality."""
    names = [
        *reader_card().findings.get(modality, {}),
        *anatomy_figures().findings.get(modality, {}),
    ]
    if modality == CHEST:
        names += [*rules().cardiothoracic_ratio.enlarged, *rules().opacity.opaque]
    return list(dict.fromkeys(names))


def judge(
    evidence: Evidence,
    finding: Finding,
    plan: Plan,
    checks: Sequence[Check],
    limits: Limits | None = None,
) -> Judged:
    """One asked finding against one image: every registered check answers, the answers are pooled.

    Args:
        evidence: The image.
        finding: As asked; its own verdict and measurements are ignored.
        plan: The plan it belongs to.
        checks: All members; those that do not cover the finding are not asked.
        limits: How sure a verdict must be; the balanced set's when None.

    Returns:
        The finding with its verdict, the pooled probability that it is as asked (0.5 when all
        abstain), corrections unless confirmed, and what could not be measured.
    """
    limits = limits or rules().thresholds["balanced"]
    asked = finding.model_copy(
        update={"verdict": "abstain", "confidence": None, "measurements": []}
    )
    if finding.status not in ("present", "absent"):
        line = f"{finding.finding}: asked as {finding.status}, which no image shows"
        return Judged(asked, 0.5, [], [line], [])
    members = [check for check in checks if check.covers(plan.modality, finding.finding)]
    answered = [(member, member.judge(evidence, finding, plan)) for member in members]
    asked_of = [(member, answer) for member, answer in answered if answer is not None]
    if not asked_of:
        line = f"{finding.finding}: no check for it in {plan.modality}"
        return Judged(asked, 0.5, [], [line], [])
    abstentions = [
        f"{finding.finding}: {answer.check}: {answer.reason}"
        for _, answer in asked_of
        if isinstance(answer, Abstain)
    ]
    measured = [answer for _, answer in asked_of if isinstance(answer, Measured)]
    if not measured:
        return Judged(asked, 0.5, [], abstentions, [])
    abstentions += _unmeasured_parts(finding, measured)
    if all(answer.advisory for answer in measured):
        abstentions.append(f"{finding.finding}: nothing measured it; an opinion decides nothing")
    probability = conclude(measured, limits)
    if any(member.holds and isinstance(answer, Abstain) for member, answer in asked_of):
        probability = min(probability, 0.5)  # a part that was asked cannot be seen
    verdict, confidence = "abstain", None
    if probability >= limits.confirm:
        verdict, confidence = "confirmed", probability
    elif probability <= limits.contradict:
        verdict, confidence = "contradicted", 1 - probability
    elif any(not answer.necessary and not answer.advisory for answer in measured):
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
    said = [(member.name, one) for member, one in asked_of if isinstance(one, Measured)]
    disagreements = _disagreements(finding, said, limits)
    return Judged(asked, probability, corrections, abstentions, disagreements)


def conclude(answers: Sequence[Measured], limits: Limits) -> float:
    """Probability that the finding is as asked, presence and every necessary part together.

    Without a word on the finding's presence the parts may contradict, but not confirm.
    """
    presence = [answer for answer in answers if not answer.necessary]
    parts = [answer.probability for answer in answers if answer.necessary]
    if any(not answer.advisory and not answer.unspecific for answer in presence):
        return min([pool(presence), *parts])
    unspecific = [answer for answer in presence if answer.unspecific]
    lowest = min([*parts, *([pool(unspecific)] if unspecific else [])], default=0.5)
    return lowest if lowest <= limits.contradict else 0.5


def _disagreements(
    finding: Finding, said: Sequence[tuple[str, Measured]], limits: Limits
) -> list[str]:
    """One line where a member by itself would confirm what another would contradict."""
    words = [f"{name} {one.probability:.2f}" for name, one in said]
    lowest = min(one.probability for _, one in said)
    highest = max(one.probability for _, one in said)
    if lowest > limits.contradict or highest < limits.confirm:
        return []
    return [f"{finding.finding}: members disagree (as asked: {', '.join(words)})"]


def pool(answers: Sequence[Measured]) -> float:
    """Weighted mean of the members' log-odds, as a probability in (0, 1)."""
    odds = [float(logit(min(max(answer.probability, 0.01), 0.99))) for answer in answers]
    weights = [max(answer.weight, 1e-3) for answer in answers]
    return float(expit(np.average(odds, weights=weights)))


def _unmeasured_parts(finding: Finding, measured: Sequence[Measured]) -> list[str]:
    """The words about a finding that no member measured: side, severity, location."""
    names = {m.name for answer in measured for m in answer.measurements}
    lines = []
    sided = any(name.startswith("opacity_") or name == "eye_side" for name in names)
    if finding.side is not None and not sided:
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
        + shares.quality * _image_quality(critique)
        + shares.alignment * margin
    )
    if critique.rejections:
        score *= shares.rejected
    elif critique.accepted is False:
        score *= shares.contradicted
    return round(min(max(score, 0.0), 1.0), 4)


def _image_quality(critique: Critique) -> float:
    """Technical quality times the share of anatomical values that real images have, 0-1."""
    score = critique.quality.score if critique.quality else 0.5
    inside = [
        (low is None or one.value >= low) and (high is None or one.value <= high)
        for one in critique.anatomy
        if one.expected is not None
        for low, high in [one.expected]
    ]
    return score * (sum(inside) / len(inside) if inside else 1.0)


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

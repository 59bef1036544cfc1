"""A phantom chest film and what measures it: a test's own generator and panel.

The film is two dark ellipses (lungs) on a grey body with a bright ellipse (heart) of a width that
follows the structured cardiothoracic ratio, weakly, with an offset of its noise; the panel reads
the ratio back from the pixels. Real enough for the loop to have something to correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from medgen.data.images import load_image
from medgen.graphs.collaborators import Collaborators
from medgen.knowledge.cases import CaseIndex
from medgen.knowledge.store import KnowledgeStore
from medgen.records import (
    Conditioning,
    Correction,
    Critique,
    Finding,
    Measurement,
    Plan,
    Quality,
)

SIZE = 128
THORAX = (14, 114)
RESPONSE = 0.4
NOISE = 0.015
MIDDLE_ROW = 75


class PhantomGenerator:
    """Draws phantom films; `batches` remembers what was asked, call by call."""

    name = "phantom"
    fingerprint = "0123456789abcdef" * 4
    modalities: tuple[str, ...] = ("Chest X-ray",)
    reads_free_text = False

    def __init__(self, noise: float = NOISE) -> None:
        self.noise = noise
        self.batches: list[list[Conditioning]] = []

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        self.batches.append(list(conditionings))
        return np.stack([self.draw(one) for one in conditionings])

    def draw(self, told: Conditioning) -> np.ndarray:
        noise = np.random.default_rng(told.seed)
        words = 0.43 + 0.02 * told.prompt.lower().count("cardiomegaly")
        asked = float(told.structured.get("cardiothoracic_ratio", words))
        ratio = 0.43 + RESPONSE * (asked - 0.43) + noise.uniform(-self.noise, self.noise)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        film = np.full((SIZE, SIZE), 120.0)
        film[:, : THORAX[0]] = film[:, THORAX[1] :] = 200
        width = ratio * (THORAX[1] - THORAX[0])
        heart = ((columns - SIZE / 2) / (width / 2)) ** 2 + ((rows - MIDDLE_ROW) / 25) ** 2 <= 1
        film[:, THORAX[0] : THORAX[1]] = 60
        film[heart] = 230
        film += noise.normal(0, 4, film.shape)
        if told.init_image is not None:
            earlier = np.asarray(load_image(told.init_image), dtype=float)[..., 0]
            film = film * (told.strength or 1) + earlier * (1 - (told.strength or 1))
        return np.repeat(film.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def cardiothoracic_ratio(image: np.ndarray) -> float:
    """The ratio read from a phantom's middle rows."""
    band = image[MIDDLE_ROW - 2 : MIDDLE_ROW + 3, :, 0].mean(axis=0)
    inside = band[THORAX[0] : THORAX[1]]
    return float((inside > 140).mean())


class PhantomPanel:
    """Measures phantom films: cardiomegaly by ratio, everything else abstains."""

    fingerprint = "fedcba9876543210"

    def __init__(self, reject: str | None = None) -> None:
        self.reject = reject
        self.plans: list[Plan] = []

    def verify(self, image: np.ndarray, plan: Plan, generated: bool = True) -> Critique:
        self.plans.append(plan)
        ratio = cardiothoracic_ratio(image)
        findings, corrections = [], []
        for asked in plan.findings:
            if asked.finding != "cardiomegaly":
                findings.append(asked.model_copy(update={"verdict": "abstain"}))
                continue
            enlarged = ratio > 0.5
            right = enlarged == (asked.status == "present")
            measurement = Measurement(
                name="cardiothoracic_ratio",
                value=ratio,
                expected=(0.5, None),
                check="phantom ratio",
                accuracy="exact",
            )
            findings.append(
                Finding(
                    finding="cardiomegaly",
                    status=asked.status,
                    verdict="confirmed" if right else "contradicted",
                    confidence=1.0,
                    measurements=[measurement],
                )
            )
            if not right:
                corrections.append(
                    Correction(
                        finding="cardiomegaly",
                        text=f"cardiothoracic ratio {ratio:.2f}, cardiomegaly needs > 0.50",
                        quantity="cardiothoracic_ratio",
                        measured=ratio,
                        target=0.55,
                    )
                )
        verdicts = [finding.verdict for finding in findings]
        accepted = None if "confirmed" not in verdicts else True
        if "contradicted" in verdicts:
            accepted = False
        rejections = [self.reject] if self.reject else []
        return Critique(
            modality="Chest X-ray",
            modality_confidence=1.0,
            findings=findings,
            quality=Quality(score=1.0),
            rejections=rejections,
            corrections=corrections,
            accepted=False if rejections else accepted,
            score=min(max(1 - abs(ratio - 0.55) * 5, 0), 1) if corrections else 0.9,
        )


@lru_cache
def knowledge_store() -> KnowledgeStore:
    """The project's own store, once a process; `MEDGEN_KNOWLEDGE` says where."""
    return KnowledgeStore.open()


@lru_cache
def case_index() -> CaseIndex:
    """The project's own cases, once a process."""
    return CaseIndex.load()


class PhantomCollaborators(Collaborators):
    """Phantom generator and panel; the knowledge is the project's own."""

    @cached_property
    def store(self) -> KnowledgeStore:
        return knowledge_store()

    @cached_property
    def cases(self) -> CaseIndex:
        return case_index()


def phantom_collaborators(
    generator: PhantomGenerator | None = None, panel: PhantomPanel | None = None
) -> Collaborators:
    return PhantomCollaborators(generator or PhantomGenerator(), panel or PhantomPanel())

"""What tests of the refiner share: plans, critiques, candidates as drawn, and the next round."""

from __future__ import annotations

from pathlib import Path

from medgen.agents.refiner import refine
from medgen.agents.state import Trial
from medgen.records import (
    Candidate,
    Conditioning,
    Correction,
    Critique,
    Finding,
    Measurement,
    Plan,
    Sign,
)

MODALITY = "Chest X-ray"
RATIO = "cardiothoracic_ratio"
PLAN = Plan(
    prompt="cardiomegaly, chest X-ray",
    modality=MODALITY,
    findings=[Finding(finding="cardiomegaly")],
    signs=[Sign(finding="pneumonia", text="patchy airspace opacity")],
)
COMPOSED = Conditioning(
    prompt="chest X-ray, enlarged heart", modality=MODALITY, structured={RATIO: 0.55}
)


def ratio_critique(value: float, target: float = 0.55, **more: object) -> Critique:
    fine = value > 0.5
    finding = Finding(
        finding="cardiomegaly",
        verdict="confirmed" if fine else "contradicted",
        measurements=[Measurement(name=RATIO, value=value, check="segmenter")],
    )
    wrong = Correction(
        finding="cardiomegaly", text="enlarge", quantity=RATIO, measured=value, target=target
    )
    fields: dict[str, object] = {
        "findings": [finding],
        "corrections": [] if fine else [wrong],
        "accepted": fine,
        "score": value,
    }
    return Critique.model_validate(fields | more)


def unseen_critique(name: str, status: str = "present", **more: object) -> Critique:
    fields: dict[str, object] = {
        "findings": [Finding(finding=name, status=status, verdict="contradicted")],  # type: ignore[arg-type]
        "accepted": False,
        "score": 0.3,
    }
    return Critique.model_validate(fields | more)


def drawn(
    name: str,
    critique: Critique,
    *,
    told: Conditioning = COMPOSED,
    parent: str | None = None,
    round_number: int = 1,
    actions: list[str] | None = None,
    control: bool = False,
) -> Candidate:
    return Candidate(
        id=name,
        round=round_number,
        parent=parent,
        image=f"/candidates/{name}.png",
        conditioning=told,
        actions=actions or [],
        critique=critique,
        control=control,
    )


def plan_next(
    candidates: list[Candidate],
    trials: list[Trial] | None = None,
    *,
    round_number: int = 2,
    count: int = 2,
    plan: Plan = PLAN,
) -> list[Candidate]:
    return refine(
        plan,
        COMPOSED,
        candidates,
        trials or [],
        seed=7,
        round_number=round_number,
        count=count,
        folder=Path("/candidates"),
    )


def trial(action: str, improved: bool, name: str = "x") -> Trial:
    after = 0.4 if improved else 0.2
    return Trial(
        action=action,
        candidate=name,
        parent="a",
        measure="score",
        before=0.3,
        after=after,
        improved=improved,
    )


def read_critique(name: str, value: float, status: str = "present", **more: object) -> Critique:
    read = Measurement(
        name=f"probability of {name}", value=value, check="finding classifier (brain_tumor)"
    )
    return unseen_critique(name, status, **more).model_copy(
        update={
            "findings": [
                Finding(finding=name, status=status, verdict="contradicted", measurements=[read])  # type: ignore[arg-type]
            ]
        }
    )


BRAIN = Plan(prompt="glioma, brain MRI", modality="Brain MRI", findings=[Finding(finding="glioma")])

"""Records of runs and labels that are not about any real image."""

from __future__ import annotations

import hashlib
from typing import Any

from medgen.feedback.records import (
    LoggedCandidate,
    LoggedRun,
    Pair,
    Rating,
    RealOrSynthetic,
)
from medgen.records import Candidate, Conditioning, Critique, Finding, Plan, Request

PROMPT, MODALITY = "cardiomegaly, chest X-ray", "Chest X-ray"


def image(name: object) -> str:
    """The hash of an image of that name."""
    return hashlib.sha256(str(name).encode()).hexdigest()


def candidate(
    run: str, number: int, prompt: str = PROMPT, modality: str = MODALITY, chosen: bool = False
) -> LoggedCandidate:
    """A drawn and verified candidate."""
    return LoggedCandidate(
        run=run,
        prompt=prompt,
        modality=modality,
        image_sha256=image(f"{run}/{number}"),
        chosen=chosen,
        decision="accept" if chosen else None,
        drawn=Candidate(
            id=f"image0-round1-{number}",
            round=1,
            image=f"/pictures/{run}/{number}.png",
            conditioning=Conditioning(prompt=prompt, modality=modality, seed=number),
            critique=Critique(
                modality=modality,
                findings=[Finding(finding="cardiomegaly", verdict="confirmed", confidence=0.9)],
                accepted=True,
                score=0.5,
            ),
        ),
    )


def run(
    name: str, candidates: int = 3, prompt: str = PROMPT, modality: str = MODALITY
) -> LoggedRun:
    """A run that ended, its first candidate chosen."""
    return LoggedRun(
        run=name,
        request=Request(prompt=prompt),
        plan=Plan(prompt=prompt, modality=modality),
        generator="phantom",
        fingerprint="0" * 8,
        candidates=[
            candidate(name, number, prompt, modality, chosen=number == 0)
            for number in range(candidates)
        ],
    )


def rating(name: object, value: int = 3, rater: str = "ann", **more: Any) -> Rating:
    """A person's rating of the image of that name."""
    given = {"source": "human", "prompt": PROMPT, "modality": MODALITY, **more}
    return Rating(
        rater=rater, image_sha256=image(name), image_path=f"/{name}.png", rating=value, **given
    )


def rated(one: LoggedCandidate, value: int, rater: str = "ann", **more: Any) -> Rating:
    """A person's rating of a candidate."""
    given = {"source": "human", **more}
    return Rating(
        rater=rater,
        image_sha256=one.image_sha256,
        image_path=one.image_path,
        run=one.run,
        candidate=one.drawn.id,
        prompt=one.prompt,
        modality=one.modality,
        rating=value,
        **given,
    )


def pair(winner: object, loser: object, rater: str = "ann", **more: Any) -> Pair:
    """A person's choice between two images."""
    given = {"source": "human", "prompt": PROMPT, "modality": MODALITY, **more}
    return Pair(
        rater=rater,
        winner=image(winner),
        loser=image(loser),
        winner_path=f"/{winner}.png",
        loser_path=f"/{loser}.png",
        **given,
    )


def guess(name: object, said: Any = "real", truth: Any = "synthetic") -> RealOrSynthetic:
    """A person's guess whether an image is real."""
    return RealOrSynthetic(
        rater="ann",
        source="human",
        prompt=PROMPT,
        modality=MODALITY,
        image_sha256=image(name),
        image_path=f"/{name}.png",
        guess=said,
        truth=truth,
    )

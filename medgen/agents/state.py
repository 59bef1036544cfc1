"""What a run carries from node to node: plain JSON values, images by path.

`AgentState` is what the checkpointer stores; records (`medgen.records` and those below) are
dumped into it by the node that wrote them. Knows no node, no model and no file format.
"""

from __future__ import annotations

import hashlib
from operator import add
from typing import Annotated, Any, Literal, TypedDict

from medgen.feedback.records import ActionOutcome
from medgen.records import Candidate, Record

Dumped = dict[str, Any]
Decision = Literal["accept", "refine", "give up"]


class Choice(Record):
    """The selector's word on one of the images asked for: its best candidate, and what next."""

    index: int
    best: str
    decision: Decision
    why: str


class Trial(ActionOutcome):
    """What one of the refiner's actions did, and to which candidate of which parent."""

    candidate: str
    parent: str


class LanguageUse(Record):
    """What a run has had of its language model so far.

    `down` says why it is not asked again in this run (it is out of reach, too slow, over budget).
    """

    tokens: int = 0
    cost: float = 0.0
    calls: int = 0
    down: str | None = None


class AgentState(TypedDict, total=False):
    """One run. Each key is written by the node named beside it and replaced as a whole.

    `events` alone grows: every node adds its own trace event.
    """

    run_id: str
    folder: str
    request: Dumped
    plan: Dumped  # parse, localize_anatomy, assess_pathology, map_features, write_report
    facts: list[Dumped]  # retrieve
    knowledge: str  # retrieve: fingerprint of what is known
    language: Dumped  # every reasoning node that may ask a language model: LanguageUse
    composed: Dumped  # compose: the refined Conditioning that every round starts from
    generator: Dumped  # compose: name, fingerprint and adapter of what draws
    panel: str  # compose: fingerprint of what verifies
    round: int  # compose, refine
    candidates: list[Dumped]  # compose, refine: planned; verify: with critique
    choices: list[Dumped]  # select, one an image
    trials: list[Dumped]  # select
    events: Annotated[list[Dumped], add]


def noise_seed(seed: int, index: int, round_number: int, number: int) -> int:
    """The noise of one candidate, in [0, 2**63): from the run's seed, never from the clock.

    Args:
        seed: The run's seed.
        index: Which of the images asked for, from 0.
        round_number: Round, from 1.
        number: Candidate within the round; 0 is the control, and the first of round 1 shares its
            noise, so ask for 0 there too.
    """
    key = f"{seed}/{index}/{round_number}/{number}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def candidate_id(index: int, round_number: int, number: int) -> str:
    """The name of a candidate and of its file: `image0-round1-control`, `image0-round2-1`."""
    return f"image{index}-round{round_number}-{number or 'control'}"


def candidates_of(state: AgentState, index: int | None = None) -> list[Candidate]:
    """The run's candidates in the order drawn, all or those of one image."""
    every = [Candidate.model_validate(dumped) for dumped in state.get("candidates", [])]
    return every if index is None else [one for one in every if one.index == index]


def seconds_spent(state: AgentState) -> float:
    """Working seconds of the nodes so far; a pause between kill and resume does not count."""
    return float(sum(event["seconds"] for event in state.get("events", [])))

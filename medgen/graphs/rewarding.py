"""A learned selector at work in a run: rewards for the round's candidates, and who decided.

A selector that did not beat its baselines on held-out labels gives none: the verifier's score
ranks then, and the trace says why.
"""

from __future__ import annotations

import numpy as np

from medgen.agents.state import AgentState, candidates_of
from medgen.data.images import load_image, square
from medgen.feedback.selector_asked import Asked
from medgen.feedback.selector_build import SIDE
from medgen.graphs.collaborators import Collaborators
from medgen.records import Plan

DIGITS = 4


def rewarded(state: AgentState, minds: Collaborators) -> tuple[AgentState, str]:
    """The state with rewards for this round's candidates, and what the trace says who ranked them.

    Raises:
        BadInput: The selector that the settings name cannot be read, or an image is gone.
    """
    reward = minds.reward
    if reward is None:
        return state, "rules"
    if not reward.card.usable:
        return state, f"rules; {reward.name}: not usable: {reward.card.why}"
    plan = Plan.model_validate(state["plan"])
    candidates = candidates_of(state)
    new = [one for one in candidates if one.reward is None]
    if new:
        pixels = np.stack([np.array(square(load_image(one.image), SIDE)) for one in new])
        scores = reward.score(pixels, [Asked.of(one, plan.prompt, plan) for one in new])
        for one, score in zip(new, scores, strict=True):
            one.reward = round(float(score), DIGITS)
    dumped = [one.model_dump(mode="json") for one in candidates]
    return AgentState(**{**state, "candidates": dumped}), reward.name  # type: ignore[typeddict-item]

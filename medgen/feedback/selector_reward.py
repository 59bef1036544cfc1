"""A trained selector as the reward of policy training; one that beat no baseline is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgen.data.images import load_square
from medgen.errors import BadInput
from medgen.feedback.preferences import Example, Reward
from medgen.feedback.selector import load_reward
from medgen.feedback.selector_asked import Asked

SIDE = 256  # pixels that the selector was trained at
BATCH = 64


def selector_reward(folder: Path) -> Reward:
    """Scores of images by a selector: log-odds of being preferred within a prompt.

    Raises:
        BadInput: No selector there, or its card says that it is not usable.
    """
    trained = load_reward(folder)
    if not trained.card.usable:
        raise BadInput(
            f"the selector in {folder} is not used ({trained.card.why}): leave `selector` out to "
            "train on the labels themselves"
        )

    def score(examples: Sequence[Example]) -> np.ndarray:
        scores = []
        for start in range(0, len(examples), BATCH):
            part = examples[start : start + BATCH]
            images = np.stack([load_square(one.path, SIDE) for one in part])
            scores.append(trained.score(images, [_asked(one) for one in part]))
        return np.concatenate(scores)

    return score


def _asked(one: Example) -> Asked:
    if one.logged is None:
        return Asked(one.prompt, one.modality, one.conditioning.structured)
    return Asked.of_row(one.logged.model_dump(mode="json"))

"""A trained selector: a reward for a candidate, from its picture, what was asked and its critique.

`load_reward` reads what `medgen rlhf selector` wrote. A selector whose card says that it is not
usable loads all the same, so that it can be looked at; the agent refuses it. Knows no log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from scipy.special import expit

from medgen.errors import BadInput
from medgen.feedback.selector_asked import Asked
from medgen.feedback.selector_card import SelectorCard
from medgen.feedback.selector_features import extract, require_encoders
from medgen.feedback.selector_head import RewardHead
from medgen.feedback.selector_training import rewards_of
from medgen.generator.checkpoints import writing_folder

WEIGHTS = "selector.safetensors"
CARD = "selector.json"
DIGITS = 16


class Reward:
    """A selector with its card."""

    def __init__(self, head: RewardHead, card: SelectorCard, fingerprint: str = "") -> None:
        self.head, self.card, self.fingerprint = head.eval(), card, fingerprint

    @property
    def name(self) -> str:
        """What traces call it: its fingerprint, and whose labels it was trained on."""
        sources = "/".join(self.card.trained_on)
        return f"selector {self.fingerprint} ({sources} labels)"

    def score(self, images: np.ndarray, every: Sequence[Asked]) -> np.ndarray:
        """Rewards (n,): differences within a prompt are log-odds of being preferred.

        Args:
            images: (n, H, H, 3) uint8, square.
            every: What was asked of each and measured in it.
        """
        features = extract(images, every, self.card.vocabulary)
        return rewards_of(self.head, features) / self.card.temperature

    def level(self, images: np.ndarray, every: Sequence[Asked]) -> np.ndarray:
        """Expected ratings (n,) in 0-1, comparable across prompts."""
        return self.as_level(self.score(images, every))

    def as_level(self, rewards: np.ndarray) -> np.ndarray:
        """Expected ratings (n,) in 0-1 of rewards, by the isotonic calibration."""
        if not self.card.knots:
            return np.asarray(expit(rewards))
        x, y = zip(*self.card.knots, strict=True)
        return np.interp(rewards, x, y)


def save_reward(reward: Reward, folder: Path) -> None:
    """Write a selector to a new folder, whole or not at all.

    Raises:
        BadInput: The folder is there already: a selector is never overwritten.
        MedgenError: It cannot be written.
    """
    require_new(folder)
    with writing_folder(folder) as new:
        state = {k: v.contiguous() for k, v in reward.head.state_dict().items()}
        (new / WEIGHTS).write_bytes(save(state))
        card = json.dumps(reward.card.model_dump(mode="json"), indent=1, ensure_ascii=False)
        (new / CARD).write_text(card + "\n", encoding="utf-8")


def require_new(folder: Path) -> None:
    """Refuse a folder that is there.

    Raises:
        BadInput: It is.
    """
    if folder.exists():
        raise BadInput(f"{folder} is there already, and is never overwritten: name another --out")


def load_reward(folder: str | Path) -> Reward:
    """Read a selector.

    Raises:
        BadInput: Nothing readable there, or trained on other encoders than are installed.
    """
    folder = Path(folder).expanduser()
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        card = SelectorCard.model_validate_json(text)
        settings = card.settings
        head = RewardHead(
            card.widths,
            settings.active,
            width=settings.width,
            dropout=settings.dropout,
            members=settings.members,
        )
        head.load_state_dict(load_file(folder / WEIGHTS))
        digest = hashlib.sha256(text.encode() + (folder / WEIGHTS).read_bytes())
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadInput(
            f"{folder / CARD} is no selector's card of this release ({reason}): train it again"
        ) from error
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"no selector in {folder} ({reason}): train one with medgen rlhf selector"
        ) from error
    require_encoders(card.encoders, folder)
    head.requires_grad_(False)
    return Reward(head, card, digest.hexdigest()[:DIGITS])

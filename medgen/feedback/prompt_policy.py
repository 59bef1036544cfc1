"""The prompt policy: which of the refiner's recipes to try, given what is wrong with an image.

A contextual bandit (Langford and Zhang 2007; Li et al. 2010, arXiv 1003.0146) over a handful of
recipes, the generator left as it is. Values of a context shrink towards those of wider contexts,
so that a few trials do not decide. Drawn with some exploration, whose probability is recorded, so
that a later policy can be learned from the log. Knows no image and no refiner.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.records import Record

EXPLORE = "explore"
EXPLORATION = 0.1
SHRINKAGE = 10.0  # trials that a wider context's value counts as
DIGITS = 16


class Context(NamedTuple):
    """What is wrong with an image: of which modality, in which finding, and in what way.

    `kind` is one of the refiner's: "rejected", "off by a number", "not seen", "seen though
    absent", "unsure".
    """

    modality: str
    finding: str
    kind: str

    def widening(self) -> tuple[str, ...]:
        """Keys from this very context to the widest, "" for all."""
        return ("|".join(self), f"{self.modality}|{self.kind}", f"|{self.kind}", "")


class Cell(Record):
    """What a recipe gained in a context more than others on the same parents, and in how many.

    `value` is shrunk towards wider contexts' and 0.
    """

    value: float
    trials: int


class PolicyEstimate(Record):
    """A policy's mean gain a trial, estimated from trials of another, with 95 % intervals.

    `ips`, `snips` and `dr` are inverse-propensity, self-normalised and doubly robust estimates
    (Swaminathan and Joachims 2015; Dudik et al. 2011, arXiv 1103.4601); `effective` is how many
    trials the weights are worth. `gain` is the doubly robust estimate minus the logging policy's
    mean. Intervals are bootstraps over prompts.
    """

    ips: tuple[float, float, float]
    snips: tuple[float, float, float]
    dr: tuple[float, float, float]
    gain: tuple[float, float, float]
    effective: float


class PromptPolicyCard(Record):
    """`prompt policy` as a file: recipes' values by context, how it was learned, what it is worth.

    `trials` had propensities below 1; `logged` is their mean gain; `measure` what a gain is of.
    `fixed` has the estimate of always trying one recipe.
    """

    schema_version: int = 1
    log: str
    log_digest: str
    measure: str
    trials: int
    prompts: int
    exploration: float = Field(gt=0, le=1)
    recipes: list[str]
    values: dict[str, dict[str, Cell]]
    logged: tuple[float, float, float] | None = None
    estimate: PolicyEstimate | None = None
    fixed: dict[str, PolicyEstimate] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class PromptPolicy:
    """Draws recipes: mostly the one of the greatest value, now and then any."""

    def __init__(self, card: PromptPolicyCard | None, fingerprint: str = "") -> None:
        """A learned policy, or with None the one that tries all recipes alike."""
        self.card, self.fingerprint = card, fingerprint

    @property
    def name(self) -> str:
        """What traces call it."""
        return f"prompt policy {self.fingerprint}" if self.card else f"prompt policy {EXPLORE}"

    def probabilities(self, context: Context, recipes: Sequence[str]) -> list[float]:
        """Of each recipe, in order; all above 0, together 1.

        Args:
            context: What is wrong.
            recipes: What may be tried; those that the policy never met count as its average.
        """
        if self.card is None:
            return [1 / len(recipes)] * len(recipes)
        values = [value_of(self.card.values, context, recipe) for recipe in recipes]
        best = values.index(max(values))
        even = self.card.exploration / len(recipes)
        return [
            even + (1 - self.card.exploration if index == best else 0.0)
            for index in range(len(recipes))
        ]


def value_of(values: dict[str, dict[str, Cell]], context: Context, recipe: str) -> float:
    """A recipe's value in the narrowest context that knows it; the mean one's where none does."""
    for key in context.widening():
        cell = values.get(key, {}).get(recipe)
        if cell is not None:
            return cell.value
    every = [cell.value for cell in values.get("", {}).values()]
    return sum(every) / len(every) if every else 0.0


def save_prompt_policy(card: PromptPolicyCard, path: Path) -> None:
    """Write a policy to a new file.

    Raises:
        BadInput: The file is there already: a policy is never overwritten.
    """
    if path.exists():
        raise BadInput(f"{path} is there already, and is never overwritten: name another --out")
    content = json.dumps(card.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_atomic(path, content + "\n")


def load_prompt_policy(where: str | Path) -> PromptPolicy:
    """Read a policy from its file; "explore" is the one that tries all recipes alike.

    Raises:
        BadInput: No readable policy there.
    """
    if str(where) == EXPLORE:
        return PromptPolicy(None)
    path = Path(where).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        card = PromptPolicyCard.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"no prompt policy at {path} ({error}): train one with medgen rlhf prompt-policy"
        ) from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise BadInput(f"{path} is no prompt policy of this release ({reason})") from error
    return PromptPolicy(card, hashlib.sha256(text.encode()).hexdigest()[:DIGITS])

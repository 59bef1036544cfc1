"""Which of the refiner's recipes a candidate tries: in turn by the rules, or drawn by a policy.

A draw follows from the run's seed, and its chance is recorded, so that a log of runs teaches a
later policy. Knows recipes and critiques; knows no image and nothing of how a policy learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from medgen.agents.refiner_rules import Recipe
from medgen.feedback.prompt_policy import Context
from medgen.records import Critique, Plan, Tactic

REJECTED = "rejected"
NUMBER = "off by a number"
NOT_SEEN = "not seen"
UNWANTED = "seen though absent"
UNSURE = "unsure"


class TacticPolicy(Protocol):
    """What chooses recipes; see `medgen.feedback.prompt_policy.PromptPolicy`."""

    @property
    def name(self) -> str:
        """What traces call it."""
        ...

    def probabilities(self, context: Context, recipes: Sequence[str]) -> list[float]:
        """Of each recipe, in order; all above 0, together 1."""
        ...


def recipe_name(recipe: Recipe) -> str:
    """A recipe in words, by which logs and policies know it."""
    return f"{recipe.noise} noise: {', '.join(recipe.actions)}"


def what_is_wrong(plan: Plan, critique: Critique) -> Context:
    """The first thing to mend: a rejection, then a contradicted finding, then an unsure one."""
    if critique.rejections:
        return Context(plan.modality, "", REJECTED)
    for finding in critique.findings:
        if finding.verdict != "contradicted":
            continue
        if finding.status == "absent":
            return Context(plan.modality, finding.finding, UNWANTED)
        by_number = any(
            one.finding == finding.finding and one.target is not None
            for one in critique.corrections
        )
        return Context(plan.modality, finding.finding, NUMBER if by_number else NOT_SEEN)
    unsure = [one.finding for one in critique.findings if one.verdict != "confirmed"]
    return Context(plan.modality, unsure[0] if unsure else "", UNSURE)


def chosen_recipe(
    recipes: Sequence[Recipe],
    by_rules: Recipe,
    context: Context,
    policy: TacticPolicy | None,
    key: str,
) -> tuple[Recipe, Tactic]:
    """A recipe and the record of how it came to be chosen.

    Args:
        recipes: All that may be tried.
        by_rules: The one whose turn it is, for when there is no policy.
        context: What is wrong with the parent.
        policy: What draws; None for the rules.
        key: From the run's seed and the candidate's place: the same key, the same draw.
    """
    recipe, propensity = by_rules, 1.0
    if policy is not None:
        chances = policy.probabilities(context, [recipe_name(one) for one in recipes])
        at = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        index = 0
        while index < len(chances) - 1 and at >= sum(chances[: index + 1]):
            index += 1
        recipe, propensity = recipes[index], chances[index]
    tactic = Tactic(
        recipe=recipe_name(recipe),
        propensity=propensity,
        modality=context.modality,
        finding=context.finding,
        kind=context.kind,
    )
    return recipe, tactic

"""Recipes drawn by a policy: seeded, with the chance recorded, and what counts as wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from medgen.agents.refiner_rules import refiner_rules
from medgen.agents.tactics import (
    NOT_SEEN,
    NUMBER,
    REJECTED,
    UNSURE,
    UNWANTED,
    chosen_recipe,
    recipe_name,
    what_is_wrong,
)
from medgen.feedback.prompt_policy import Context
from medgen.records import Correction, Critique, Finding, Plan

PLAN = Plan(prompt="glioma, brain MRI", modality="Brain MRI")
WRONG = Context("Brain MRI", "glioma", NOT_SEEN)
RECIPES = refiner_rules().recipes


class Biased:
    """Prefers the second recipe."""

    name = "biased"

    def probabilities(self, context: Context, recipes: Sequence[str]) -> list[float]:
        rest = 0.3 / (len(recipes) - 1)
        return [0.7 if index == 1 else rest for index in range(len(recipes))]


def test_draws_follow_the_chances_and_record_them() -> None:
    drawn = [chosen_recipe(RECIPES, RECIPES[0], WRONG, Biased(), f"key {n}") for n in range(2000)]
    second = [tactic for recipe, tactic in drawn if recipe == RECIPES[1]]
    assert len(second) / 2000 == pytest.approx(0.7, abs=0.04)
    assert {tactic.propensity for tactic in second} == {0.7}
    others = {tactic.propensity for _, tactic in drawn if tactic.recipe != second[0].recipe}
    assert list(others) == pytest.approx([0.3 / (len(RECIPES) - 1)])
    assert {tactic.recipe for _, tactic in drawn} == {recipe_name(one) for one in RECIPES}


def test_the_same_key_draws_the_same() -> None:
    once = chosen_recipe(RECIPES, RECIPES[0], WRONG, Biased(), "7/0/2/1")
    assert once == chosen_recipe(RECIPES, RECIPES[0], WRONG, Biased(), "7/0/2/1")


def test_without_a_policy_the_rules_are_certain() -> None:
    recipe, tactic = chosen_recipe(RECIPES, RECIPES[2], WRONG, None, "key")
    assert recipe == RECIPES[2] and tactic.propensity == 1.0
    assert (tactic.modality, tactic.finding, tactic.kind) == WRONG


def test_recipes_have_names_of_their_own() -> None:
    assert len({recipe_name(one) for one in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize(
    ("critique", "expected"),
    [
        (Critique(rejections=["blurred"]), ("", REJECTED)),
        (Critique(findings=[Finding(finding="glioma", verdict="contradicted")]),
         ("glioma", NOT_SEEN)),
        (Critique(findings=[Finding(finding="glioma", status="absent", verdict="contradicted")]),
         ("glioma", UNWANTED)),
        (Critique(
            findings=[Finding(finding="a", verdict="confirmed"),
                      Finding(finding="b", verdict="contradicted")],
            corrections=[Correction(finding="b", text="more", quantity="q", measured=1, target=2)]),
         ("b", NUMBER)),
        (Critique(findings=[Finding(finding="a", verdict="confirmed"),
                            Finding(finding="b", verdict="abstain")]), ("b", UNSURE)),
        (Critique(), ("", UNSURE)),
    ],
)  # fmt: skip
def test_what_is_wrong(critique: Critique, expected: tuple[str, str]) -> None:
    assert what_is_wrong(PLAN, critique) == ("Brain MRI", *expected)

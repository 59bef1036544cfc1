"""The refiner: turns a critique's corrections into changes of what the generator is told.

A number is corrected through the structured condition, a finding that a classifier does not see by
steering towards it, by emphasis, negative prompt and guidance, the rest through noise: all of it,
img2img from the best candidate, or the region at fault alone. It remembers within a run which
actions improved what was measured and drops those that did not. It only ever changes the means:
the verifier goes on checking against the user's own prompt, which is never touched here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medgen.agents import refiner_pictures as pictures
from medgen.agents import refiner_words as words
from medgen.agents.refiner_rules import ActionName, Recipe, RefinerRules, refiner_rules
from medgen.agents.refiner_situation import (
    Change,
    Situation,
    action_name,
    correction_of,
    measured,
)
from medgen.agents.selector import critique_of, rank
from medgen.agents.state import Trial, candidate_id, noise_seed
from medgen.agents.tactics import TacticPolicy, chosen_recipe, what_is_wrong
from medgen.records import Candidate, Conditioning, Plan

ACTIONS: dict[ActionName, Callable[[Situation, Conditioning], Change]] = {
    "structured": words.structured,
    "emphasis": words.emphasis,
    "negative": words.negative,
    "guidance": words.guidance,
    "img2img": pictures.img2img,
    "region": pictures.region,
    "steer": pictures.steer,
}


def trials_of_round(candidates: Sequence[Candidate], round_number: int) -> list[Trial]:
    """What the actions of a round did, each candidate beside the parent that it refined.

    Args:
        candidates: One image's verified candidates so far.
        round_number: The round just verified.

    Returns:
        One trial for each action: a structured change by the error of its quantity (none where
        the quantity was not measured), any other by the critique's score.
    """
    by_id = {candidate.id: candidate for candidate in candidates}
    trials = []
    for candidate in candidates:
        if candidate.round != round_number or candidate.parent is None:
            continue
        parent, child = critique_of(by_id[candidate.parent]), critique_of(candidate)
        for action in candidate.actions:
            name = action_name(action)
            measure, before, after = "score", parent.score, child.score
            improved = after > before and not child.rejections
            if name.startswith("structured "):
                quantity = name.removeprefix("structured ")
                wrong, now = correction_of(parent, quantity), measured(child, quantity)
                if wrong is None or wrong.target is None or wrong.measured is None or now is None:
                    continue
                measure = f"error of {quantity}"
                before, after = abs(wrong.measured - wrong.target), abs(now - wrong.target)
                improved = after < before or correction_of(child, quantity) is None
            trials.append(
                Trial(
                    action=name,
                    candidate=candidate.id,
                    parent=candidate.parent,
                    measure=measure,
                    before=round(before, 4),
                    after=round(after, 4),
                    improved=improved,
                )
            )
    return trials


def _recipe(rules: RefinerRules, round_number: int, number: int, count: int) -> Recipe:
    if count == 1:
        return rules.recipes[(round_number - 2) % len(rules.recipes)]
    if number == 1:
        return rules.recipes[0]
    turn = (round_number - 2) * (count - 1) + number - 2
    return rules.recipes[1 + turn % (len(rules.recipes) - 1)]


def _told(
    situation: Situation, composed: Conditioning, recipe: Recipe, noise: int | None
) -> Change:
    """What a candidate is told: what its parent was, on fresh noise where given, changed."""
    told = situation.parent.conditioning
    actions: list[str] = []
    if situation.parent.control:
        told = composed.model_copy(update={"seed": told.seed})
    if noise is not None:
        told, actions = words.on_fresh_noise(situation, told, noise)
    for action in recipe.actions:
        told, taken = ACTIONS[action](situation, told)
        actions = [*actions, *taken]
    return told, actions


def refine(
    plan: Plan,
    composed: Conditioning,
    candidates: Sequence[Candidate],
    trials: Sequence[Trial],
    *,
    seed: int,
    round_number: int,
    count: int,
    folder: Path,
    guidance_scale: float | None = None,
    steers: bool = True,
    policy: TacticPolicy | None = None,
) -> list[Candidate]:
    """Plan the next round for one image.

    Args:
        plan: What was concluded from the user's prompt.
        composed: What the first round was told; a refined control starts from it.
        candidates: This image's verified candidates so far.
        trials: What this image's earlier actions did.
        seed: The run's seed.
        round_number: The round to plan, from 2.
        count: How many candidates.
        folder: Where their images will lie.
        guidance_scale: The generator's own; the settings' when None.
        steers: Whether the generator follows aims.
        policy: What draws the recipes; they are tried in turn when None.

    Returns:
        Candidates not yet drawn, no two told the same, and none told what one before was.
    """
    rules = refiner_rules()
    parent = rank(candidates)[0]
    situation = Situation(plan, parent, candidates, trials, rules, guidance_scale, steers)
    drawn = [candidate.conditioning for candidate in candidates]
    wrong = what_is_wrong(plan, situation.critique)
    planned = []
    for number in range(1, count + 1):
        turn = _recipe(rules, round_number, number, count)
        key = f"{seed}/{parent.index}/{round_number}/{number}/recipe"
        recipe, tactic = chosen_recipe(rules.recipes, turn, wrong, policy, key)
        noise = noise_seed(seed, parent.index, round_number, number)
        fresh = recipe.noise == "fresh" or bool(situation.critique.rejections)
        told, actions = _told(situation, composed, recipe, noise if fresh else None)
        if told in drawn:
            fresh = True
            told, actions = _told(situation, composed, recipe, noise)
        drawn.append(told)
        name = candidate_id(parent.index, round_number, number)
        planned.append(
            Candidate(
                id=name,
                index=parent.index,
                round=round_number,
                parent=parent.id,
                image=str(folder / f"{name}.png"),
                conditioning=told,
                actions=[*actions, "fresh noise" if fresh else "same noise"],
                tactic=tactic,
            )
        )
    return planned

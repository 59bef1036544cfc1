"""The refiner: turns a critique's corrections into changes of what the generator is told.

A number is corrected through the structured condition, a finding without one through emphasis,
negative prompt and guidance, the rest through noise and img2img. It remembers within a run which
actions improved what was measured and drops those that did not. It only ever changes the means:
the verifier goes on checking against the user's own prompt, which is never touched here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgen.agents.refiner_rules import ActionName, Recipe, RefinerRules, refiner_rules
from medgen.agents.selector import critique_of, rank
from medgen.agents.state import Trial, candidate_id, noise_seed
from medgen.agents.tactics import TacticPolicy, chosen_recipe, what_is_wrong
from medgen.knowledge.cards import finding_cards
from medgen.records import Candidate, Conditioning, Correction, Critique, Finding, Plan
from medgen.settings import settings


def action_name(action: str) -> str:
    """What the memory knows an action by: the words before its figures."""
    return action.split(": ", 1)[0]


def measured(critique: Critique, quantity: str) -> float | None:
    """The value of a quantity in a critique, or None where nothing measured it."""
    for finding in critique.findings:
        for measurement in finding.measurements:
            if measurement.name == quantity:
                return measurement.value
    for correction in critique.corrections:
        if correction.quantity == quantity and correction.measured is not None:
            return correction.measured
    return None


def _correction(critique: Critique, quantity: str) -> Correction | None:
    for correction in critique.corrections:
        if correction.quantity == quantity and correction.target is not None:
            return correction
    return None


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
                wrong, now = _correction(parent, quantity), measured(child, quantity)
                if wrong is None or wrong.target is None or wrong.measured is None or now is None:
                    continue
                measure = f"error of {quantity}"
                before, after = abs(wrong.measured - wrong.target), abs(now - wrong.target)
                improved = after < before or _correction(child, quantity) is None
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


@dataclass(frozen=True)
class Situation:
    """What an action may look at: the plan, the candidate refined, its forebears, the memory.

    `guidance_scale` is the generator's own, for candidates that were told none.
    """

    plan: Plan
    parent: Candidate
    candidates: Sequence[Candidate]
    trials: Sequence[Trial]
    rules: RefinerRules
    guidance_scale: float | None = None

    @property
    def critique(self) -> Critique:
        """The parent's critique."""
        return critique_of(self.parent)

    def dropped(self, action: str) -> bool:
        """Whether this image's trials of an action were enough, and none an improvement."""
        past = [trial.improved for trial in self.trials if trial.action == action]
        return len(past) >= self.rules.memory.trials and not any(past)

    def lineage(self) -> list[Candidate]:
        """The parent, its parent, and so on."""
        by_id = {candidate.id: candidate for candidate in self.candidates}
        line = [self.parent]
        while line[-1].parent is not None:
            line.append(by_id[line[-1].parent])
        return line

    def numeric(self) -> list[Correction]:
        """Corrections that the structured condition can act on and still may."""
        return [
            correction
            for correction in self.critique.corrections
            if correction.quantity in self.rules.structured
            and correction.measured is not None
            and correction.target is not None
            and not self.dropped(f"structured {correction.quantity}")
        ]

    def unseen(self) -> list[Finding]:
        """Findings asked for and not seen, or not surely, that no number can be moved for."""
        moved = {correction.finding for correction in self.numeric()}
        wrong = {correction.finding for correction in self.critique.corrections}
        return [
            finding
            for finding in self.critique.findings
            if finding.status == "present"
            and (finding.verdict == "contradicted" or finding.finding in wrong)
            and finding.finding not in moved
        ]


Change = tuple[Conditioning, list[str]]


def response_gain(situation: Situation, quantity: str) -> float:
    """How much more to ask for than is missing, from what asking for more did on the same noise."""
    rules = situation.rules.gain
    by_id = {candidate.id: candidate for candidate in situation.candidates}
    for candidate in reversed(situation.candidates):
        earlier = by_id.get(candidate.parent or "")
        told = candidate.conditioning
        if earlier is None or (told.seed, told.init_image) != (
            earlier.conditioning.seed,
            earlier.conditioning.init_image,
        ):
            continue
        asked = [one.conditioning.structured.get(quantity) for one in (earlier, candidate)]
        got = [measured(critique_of(one), quantity) for one in (earlier, candidate)]
        if None in asked or got[0] is None or got[1] is None:
            continue
        change = float(asked[1] or 0) - float(asked[0] or 0)
        if abs(change) < rules.least_change:
            continue
        slope = (got[1] - got[0]) / change
        return min(max(1 / slope, rules.low), rules.high) if slope > 0 else rules.high
    return rules.start


def restated(prompt: str, quantity: str, value: float) -> str:
    """A prompt with the number that it gives for a quantity replaced, where it gives one."""
    words = re.escape(quantity.replace("_", " "))
    return re.sub(rf"\b({words}) \d+(?:\.\d+)?", rf"\g<1> {value:.2f}", prompt)


def _structured(situation: Situation, told: Conditioning) -> Change:
    prompt, values, actions = told.prompt, dict(told.structured), []
    for correction in situation.numeric():
        quantity, now, target = correction.quantity, correction.measured, correction.target
        assert quantity is not None and now is not None and target is not None
        span = situation.rules.structured[quantity]
        asked = float(values.get(quantity, target))
        gain = response_gain(situation, quantity)
        step = min(max((target - now) * gain, -span.largest_step), span.largest_step)
        value = round(min(max(asked + step, span.low), span.high), 4)
        if value == round(asked, 4):
            continue
        values[quantity] = value
        prompt = restated(prompt, quantity, value)
        actions.append(
            f"structured {quantity}: {asked:.3f} -> {value:.3f} "
            f"(measured {now:.3f}, target {target:.3f}, gain {gain:.2f})"
        )
    return told.model_copy(update={"prompt": prompt, "structured": values}), actions


def _phrase(finding: Finding) -> str:
    return " ".join(word for word in (finding.severity, finding.side, finding.finding) if word)


def _emphasis(situation: Situation, told: Conditioning) -> Change:
    prompt, actions = told.prompt, []
    done = [action_name(action) for one in situation.lineage() for action in one.actions]
    for finding in situation.unseen():
        action = f"emphasis {finding.finding}"
        level = done.count(action)
        signs = [one.text for one in situation.plan.signs if one.finding == finding.finding]
        if situation.dropped(action) or level >= len(situation.rules.emphasis):
            continue
        added = situation.rules.emphasis[level].format(
            finding=_phrase(finding), sign=signs[0] if signs else _phrase(finding)
        )
        longer = f"{prompt.rstrip(' .,')}, {added}"
        if len(longer) > situation.rules.longest_prompt:
            continue
        prompt = longer
        actions.append(f"{action}: + {added}")
    return told.model_copy(update={"prompt": prompt}), actions


def _negative(situation: Situation, told: Conditioning) -> Change:
    if situation.dropped("negative prompt"):
        return told, []
    cards = finding_cards().get(situation.plan.modality, {})
    unwanted: list[str] = []
    for finding in situation.critique.findings:
        if finding.verdict != "contradicted":
            continue
        if finding.status == "absent":
            unwanted.append(_phrase(finding))
        elif finding.finding in cards:
            unwanted += cards[finding.finding].excludes
    negative = told.negative_prompt
    added = []
    for words in dict.fromkeys(unwanted):
        longer = f"{negative}, {words}" if negative else words
        known = words.lower() in negative.lower()
        if not known and len(longer) <= situation.rules.longest_negative_prompt:
            negative = longer
            added.append(words)
    actions = [f"negative prompt: + {', '.join(added)}"] if added else []
    return told.model_copy(update={"negative_prompt": negative}), actions


def _guidance(situation: Situation, told: Conditioning) -> Change:
    rules, critique = situation.rules.guidance, situation.critique
    other_modality = critique.modality not in (None, situation.plan.modality)
    if critique.quality is not None and critique.quality.problems:
        direction, factor = "down", rules.down
    elif situation.unseen() or other_modality:
        direction, factor = "up", rules.up
    else:
        return told, []
    action = f"guidance {direction}"
    scale = told.guidance_scale or situation.guidance_scale or settings().guidance_scale
    value = round(min(max(scale * factor, rules.low), rules.high), 2)
    if situation.dropped(action) or (value > scale) != (factor > 1):
        return told, []
    return told.model_copy(update={"guidance_scale": value}), [
        f"{action}: {scale:.2f} -> {value:.2f}"
    ]


def _img2img(situation: Situation, told: Conditioning) -> Change:
    rules, critique = situation.rules.img2img, situation.critique
    right = not critique.rejections and critique.score >= rules.least_score
    if not right or situation.dropped("img2img"):
        return told, []
    change = {"init_image": situation.parent.image, "strength": rules.strength}
    return told.model_copy(update=change), [
        f"img2img: from {situation.parent.id} at strength {rules.strength:.2f}"
    ]


ACTIONS: dict[ActionName, Callable[[Situation, Conditioning], Change]] = {
    "structured": _structured,
    "emphasis": _emphasis,
    "negative": _negative,
    "guidance": _guidance,
    "img2img": _img2img,
}


def _recipe(rules: RefinerRules, round_number: int, number: int, count: int) -> Recipe:
    if number == 1:
        return rules.recipes[0]
    turn = (round_number - 2) * (count - 1) + number - 2
    return rules.recipes[1 + turn % (len(rules.recipes) - 1)]


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
        policy: What draws the recipes; they are tried in turn when None.

    Returns:
        Candidates not yet drawn, no two told the same, and none told what one before was.
    """
    rules = refiner_rules()
    parent = rank(candidates)[0]
    situation = Situation(plan, parent, candidates, trials, rules, guidance_scale)
    drawn = [candidate.conditioning for candidate in candidates]
    wrong = what_is_wrong(plan, situation.critique)
    planned = []
    for number in range(1, count + 1):
        turn = _recipe(rules, round_number, number, count)
        key = f"{seed}/{parent.index}/{round_number}/{number}/recipe"
        recipe, tactic = chosen_recipe(rules.recipes, turn, wrong, policy, key)
        start = parent.conditioning
        if parent.control:
            start = composed.model_copy(update={"seed": parent.conditioning.seed})
        fresh = recipe.noise == "fresh" or bool(situation.critique.rejections)
        told, actions = start, []
        if fresh:
            noise = noise_seed(seed, parent.index, round_number, number)
            told = start.model_copy(update={"seed": noise, "init_image": None, "strength": None})
        for action in recipe.actions:
            told, taken = ACTIONS[action](situation, told)
            actions += taken
        if told in drawn:
            fresh = True
            told = told.model_copy(
                update={"seed": noise_seed(seed, parent.index, round_number, number)}
            )
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

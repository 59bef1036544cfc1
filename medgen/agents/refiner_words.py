"""Actions on numbers and words: the structured condition, emphasis, negative prompt, guidance."""

from __future__ import annotations

import re

from medgen.agents.refiner_situation import Change, Situation, action_name, measured
from medgen.agents.selector import critique_of
from medgen.knowledge.cards import finding_cards
from medgen.records import Conditioning, Finding
from medgen.settings import settings


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


def on_fresh_noise(situation: Situation, told: Conditioning, seed: int) -> Change:
    """Another noise, drawn whole: from no picture, and what was of the noise as at first."""
    prompt, values, actions = told.prompt, dict(told.structured), []
    for quantity, span in situation.rules.structured.items():
        first, asked = situation.first_asked(quantity), values.get(quantity)
        if not span.of_noise or first is None or asked is None or float(asked) == first:
            continue
        values[quantity] = first
        prompt = restated(prompt, quantity, first)
        was = float(asked)
        actions.append(f"structured {quantity}: {was:.3f} -> {first:.3f} (as at first)")
    change: dict[str, object] = {"seed": seed, "prompt": prompt, "structured": values}
    change |= dict.fromkeys(("init_image", "strength", "mask_image"))
    return told.model_copy(update=change), actions


def structured(situation: Situation, told: Conditioning) -> Change:
    """Move the numbers that were measured wrong, by what is missing times the measured gain.

    On fresh noise the measured gain says nothing, and a number whose error was the noise's own
    stays as `on_fresh_noise` left it.
    """
    prompt, values, actions = told.prompt, dict(told.structured), []
    fresh = told.seed != situation.parent.conditioning.seed
    for correction in situation.numeric():
        quantity, now, target = correction.quantity, correction.measured, correction.target
        assert quantity is not None and now is not None and target is not None
        span = situation.rules.structured[quantity]
        asked = float(values.get(quantity, target))
        if fresh and span.of_noise:
            continue
        gain = situation.rules.gain.start if fresh else response_gain(situation, quantity)
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


def emphasis(situation: Situation, told: Conditioning) -> Change:
    """Say again what was not seen, then with its sign."""
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


def negative(situation: Situation, told: Conditioning) -> Change:
    """Name what was seen though absent, and what excludes a finding that was not seen."""
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


def guidance(situation: Situation, told: Conditioning) -> Change:
    """Less guidance for a poor picture, more for a finding that no number moves."""
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

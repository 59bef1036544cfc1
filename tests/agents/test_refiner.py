"""The refiner: corrections become changes that act, and what did not help is dropped."""

from __future__ import annotations

import pytest
from refined import (
    COMPOSED,
    MODALITY,
    PLAN,
    RATIO,
    drawn,
    plan_next,
    ratio_critique,
    trial,
    unseen_critique,
)

from medgen.agents.refiner import trials_of_round
from medgen.agents.refiner_rules import refiner_rules
from medgen.agents.refiner_situation import Situation, measured
from medgen.agents.refiner_words import response_gain
from medgen.agents.state import noise_seed
from medgen.knowledge.cards import finding_cards
from medgen.records import (
    Conditioning,
    Correction,
    Critique,
    Finding,
    Quality,
)


def test_a_number_moves_the_structured_condition_by_its_error() -> None:
    first, second = plan_next([drawn("a", ratio_critique(0.47))])
    assert first.conditioning.structured[RATIO] == pytest.approx(0.55 + 1.6 * (0.55 - 0.47))
    assert second.actions[-1] == "fresh noise"  # the error was the other noise's own
    assert second.conditioning.structured[RATIO] == 0.55
    assert first.actions[0].startswith(f"structured {RATIO}: 0.550 -> 0.678")
    assert "measured 0.470" in first.actions[0]


def test_the_prompts_own_number_follows_the_structured_condition() -> None:
    told = COMPOSED.model_copy(
        update={"prompt": "chest X-ray, cardiomegaly, cardiothoracic ratio 0.55, 55 years"}
    )
    (first, _) = plan_next([drawn("a", ratio_critique(0.47), told=told)])
    expected = "chest X-ray, cardiomegaly, cardiothoracic ratio 0.68, 55 years"
    assert first.conditioning.prompt == expected


def test_too_large_a_number_moves_it_down() -> None:
    high = ratio_critique(0.47, target=0.42)
    (first, _) = plan_next([drawn("a", high)])
    assert first.conditioning.structured[RATIO] == pytest.approx(0.47)


def test_structured_change_is_bounded() -> None:
    span = refiner_rules().structured[RATIO]
    far = drawn("a", ratio_critique(0.2, target=0.6))
    assert plan_next([far])[0].conditioning.structured[RATIO] == pytest.approx(
        0.55 + span.largest_step
    )
    edge = COMPOSED.model_copy(update={"structured": {RATIO: span.high}})
    (first, _) = plan_next([drawn("a", ratio_critique(0.47), told=edge)])
    assert first.conditioning.structured[RATIO] == span.high
    assert not any(action.startswith("structured") for action in first.actions)


def test_a_condition_that_was_not_given_starts_at_the_target() -> None:
    bare = COMPOSED.model_copy(update={"structured": {}})
    (first, _) = plan_next([drawn("a", ratio_critique(0.47), told=bare)])
    assert first.conditioning.structured[RATIO] == pytest.approx(0.678)


def test_a_refined_control_starts_from_the_composed_conditioning() -> None:
    raw = Conditioning(prompt="cardiomegaly", modality=MODALITY, seed=5)
    control = drawn("control", ratio_critique(0.49), told=raw, control=True)
    worse = drawn("composed", ratio_critique(0.40), told=COMPOSED.model_copy(update={"seed": 5}))
    first, second = plan_next([control, worse])
    assert first.conditioning.prompt == COMPOSED.prompt
    assert first.conditioning.seed == 5
    assert first.parent == second.parent == "control"


def test_the_first_candidate_keeps_the_noise_and_the_second_takes_fresh() -> None:
    told = COMPOSED.model_copy(update={"seed": 11})
    first, second = plan_next([drawn("a", ratio_critique(0.47), told=told)])
    assert (first.conditioning.seed, first.actions[-1]) == (11, "same noise")
    assert second.conditioning.seed == noise_seed(7, 0, 2, 2)
    assert second.actions[-1] == "fresh noise"


def test_a_rejected_parent_always_gets_fresh_noise() -> None:
    memorised = ratio_critique(0.47, rejections=["memorised"])
    told = COMPOSED.model_copy(update={"seed": 11})
    planned = plan_next([drawn("a", memorised, told=told)], count=4)
    assert 11 not in [one.conditioning.seed for one in planned]
    assert all(one.conditioning.init_image is None for one in planned)


def test_gain_follows_the_response_measured_on_the_same_noise() -> None:
    told = COMPOSED.model_copy(update={"structured": {RATIO: 0.58}})
    weak = [
        drawn("a", ratio_critique(0.45)),
        drawn("b", ratio_critique(0.49), told=told, parent="a", round_number=2),
    ]
    situation = Situation(PLAN, weak[1], weak, [], refiner_rules())
    assert response_gain(situation, RATIO) == pytest.approx(0.03 / 0.04)
    (first, _) = plan_next(weak, round_number=3)
    assert first.conditioning.structured[RATIO] == pytest.approx(0.58 + 0.06 * 0.75)


def test_fresh_noise_is_asked_as_at_first_unless_the_error_is_the_generators() -> None:
    high = COMPOSED.model_copy(update={"structured": {RATIO: 0.65}})
    line = [
        drawn("a", ratio_critique(0.45)),
        drawn("b", ratio_critique(0.49), told=high, parent="a", round_number=2),
    ]
    same, fresh = plan_next(line)
    assert same.conditioning.structured[RATIO] == pytest.approx(0.70)  # the bound
    assert fresh.conditioning.structured[RATIO] == 0.55
    assert fresh.actions[0] == f"structured {RATIO}: 0.650 -> 0.550 (as at first)"

    dense = Correction(
        finding="clear lungs", text="clear it", quantity="opacity_left", measured=0.5, target=0.4
    )
    told = COMPOSED.model_copy(update={"structured": {"opacity_left": 0.38}})
    parent = drawn("a", Critique(corrections=[dense]), told=told)
    _, fresh = plan_next([parent])
    assert fresh.conditioning.structured["opacity_left"] == pytest.approx(0.38 - 0.1 * 1.6)


def test_what_can_grow_no_more_is_drawn_on_fresh_noise_as_at_first() -> None:
    most = refiner_rules().structured[RATIO].high
    small = drawn("a", ratio_critique(0.45))
    (again,) = plan_next([small], count=1)  # its negative prompt can grow no more either
    told = again.conditioning.model_copy(update={"structured": {RATIO: most}})
    large = drawn("b", ratio_critique(0.49), told=told, parent="a", round_number=2)
    (only,) = plan_next([small, large], count=1)
    assert only.actions[-1] == "fresh noise"
    assert only.conditioning.structured[RATIO] == 0.55


def test_fresh_noise_starts_from_no_picture() -> None:
    part = {"init_image": "/a.png", "mask_image": "/m.png", "strength": 0.8}
    parent = drawn("a", ratio_critique(0.47), told=COMPOSED.model_copy(update=part))
    _, fresh = plan_next([parent])
    told = fresh.conditioning
    assert (told.init_image, told.mask_image, told.strength) == (None, None, None)


def test_gain_is_bounded_and_other_noise_teaches_nothing() -> None:
    rules = refiner_rules()
    told = COMPOSED.model_copy(update={"structured": {RATIO: 0.63}})
    dead = [
        drawn("a", ratio_critique(0.45)),
        drawn("b", ratio_critique(0.44), told=told, parent="a", round_number=2),
    ]
    assert response_gain(Situation(PLAN, dead[0], dead, [], rules), RATIO) == rules.gain.high
    other = told.model_copy(update={"seed": 99})
    pair = [dead[0], drawn("b", ratio_critique(0.49), told=other, parent="a", round_number=2)]
    assert response_gain(Situation(PLAN, pair[0], pair, [], rules), RATIO) == rules.gain.start


def test_emphasis_repeats_the_unseen_finding_then_adds_its_sign() -> None:
    parent = drawn("a", unseen_critique("pneumonia"))
    (first, _) = plan_next([parent])
    assert first.conditioning.prompt == "chest X-ray, enlarged heart, pneumonia"
    again = first.model_copy(update={"critique": unseen_critique("pneumonia", score=0.4)})
    (second, _) = plan_next([parent, again], round_number=3)
    assert second.conditioning.prompt.endswith(", pneumonia, pneumonia, patchy airspace opacity")


def test_what_was_measured_as_unsure_is_emphasised_too() -> None:
    unsure = Critique(
        findings=[Finding(finding="pneumonia", verdict="abstain")],
        corrections=[Correction(finding="pneumonia", text="show it more clearly")],
    )
    (first, _) = plan_next([drawn("a", unsure)])
    assert first.conditioning.prompt.endswith(", pneumonia")


def test_emphasis_names_side_and_severity() -> None:
    asked = Finding(
        finding="pleural effusion", side="right", severity="severe", verdict="contradicted"
    )
    parent = drawn("a", Critique(findings=[asked], accepted=False))
    assert plan_next([parent])[0].conditioning.prompt.endswith("severe right pleural effusion")


def test_emphasis_stops_at_the_longest_prompt() -> None:
    long = COMPOSED.model_copy(update={"prompt": "x" * refiner_rules().longest_prompt})
    (first, _) = plan_next([drawn("a", unseen_critique("pneumonia"), told=long)])
    assert first.conditioning.prompt == long.prompt


def test_a_number_that_can_move_is_not_also_emphasised() -> None:
    (first, _) = plan_next([drawn("a", ratio_critique(0.47))])
    assert first.conditioning.prompt == COMPOSED.prompt


def test_negative_prompt_takes_what_was_seen_but_excluded() -> None:
    (first, _) = plan_next([drawn("a", unseen_critique("pneumonia", "absent"))])
    assert first.conditioning.negative_prompt == "pneumonia"
    assert "pneumonia" not in first.conditioning.prompt


def test_negative_prompt_takes_what_an_unseen_finding_excludes() -> None:
    excludes = finding_cards()[MODALITY]["cardiomegaly"].excludes
    assert excludes
    (first, _) = plan_next([drawn("a", ratio_critique(0.47))])
    assert all(words in first.conditioning.negative_prompt for words in excludes)


def test_guidance_goes_up_for_the_unseen_and_down_for_poor_quality() -> None:
    rules = refiner_rules()
    turn = next(place for place, recipe in enumerate(rules.recipes) if "guidance" in recipe.actions)
    told = COMPOSED.model_copy(update={"guidance_scale": 2.5})
    parent = drawn("a", unseen_critique("pneumonia"), told=told)
    up = plan_next([parent], count=len(rules.recipes))[turn]
    assert up.conditioning.guidance_scale == pytest.approx(2.5 * rules.guidance.up)
    poor = Quality(score=0.1, problems=["overexposed"])
    parent = drawn("a", unseen_critique("pneumonia", quality=poor), told=told)
    down = plan_next([parent], count=len(rules.recipes))[turn]
    assert down.conditioning.guidance_scale == pytest.approx(2.5 * rules.guidance.down, abs=0.01)


def test_guidance_stays_within_bounds() -> None:
    rules = refiner_rules()
    turn = next(place for place, recipe in enumerate(rules.recipes) if "guidance" in recipe.actions)
    told = COMPOSED.model_copy(update={"guidance_scale": rules.guidance.high})
    parent = drawn("a", unseen_critique("pneumonia"), told=told)
    planned = plan_next([parent], count=len(rules.recipes))[turn]
    assert planned.conditioning.guidance_scale == rules.guidance.high


def test_a_rounds_only_candidate_goes_through_the_recipes() -> None:
    parent = drawn("a", ratio_critique(0.47))
    noises = {
        number: plan_next([parent], round_number=number, count=1)[0].actions[-1]
        for number in range(2, 2 + len(refiner_rules().recipes))
    }
    wanted = [f"{recipe.noise} noise" for recipe in refiner_rules().recipes]
    assert wanted[0] == "same noise" and "fresh noise" in wanted
    assert list(noises.values()) == wanted


def test_nothing_is_drawn_twice() -> None:
    mute = Critique(findings=[Finding(finding="x", verdict="abstain")], accepted=None)
    planned = plan_next([drawn("a", mute)], count=6)
    told = [one.conditioning.model_dump_json() for one in [drawn("a", mute), *planned]]
    assert len(set(told)) == len(told)


def test_same_inputs_give_the_same_plan() -> None:
    candidates = [drawn("a", ratio_critique(0.47))]
    assert plan_next(candidates) == plan_next(candidates)


def test_an_action_that_never_helped_is_dropped_and_words_take_over() -> None:
    name = f"structured {RATIO}"
    enough = refiner_rules().memory.trials
    trials = [trial(name, False) for _ in range(enough)]
    (first, _) = plan_next([drawn("a", ratio_critique(0.47))], trials)
    assert first.conditioning.structured == COMPOSED.structured
    assert first.conditioning.prompt.endswith("cardiomegaly")
    (kept, _) = plan_next([drawn("a", ratio_critique(0.47))], trials[1:])
    assert kept.conditioning.structured != COMPOSED.structured


def test_an_action_that_helped_once_is_kept() -> None:
    name = f"structured {RATIO}"
    trials = [trial(name, False), trial(name, True), trial(name, False)]
    (first, _) = plan_next([drawn("a", ratio_critique(0.47))], trials)
    assert first.conditioning.structured[RATIO] == pytest.approx(0.678)


def test_trials_say_what_each_action_did() -> None:
    parent = drawn("a", ratio_critique(0.45))
    actions = [f"structured {RATIO}: 0.550 -> 0.650", "emphasis cardiomegaly: + cardiomegaly"]
    child = drawn("b", ratio_critique(0.53), parent="a", round_number=2, actions=actions)
    numeric, words = trials_of_round([parent, child], 2)
    assert numeric.measure == f"error of {RATIO}"
    assert (numeric.before, numeric.after) == (pytest.approx(0.10), pytest.approx(0.02))
    assert (words.measure, words.action) == ("score", "emphasis cardiomegaly")
    assert numeric.improved and words.improved
    assert trials_of_round([parent, child], 1) == []


def test_a_worse_candidate_is_a_trial_that_did_not_help() -> None:
    parent = drawn("a", ratio_critique(0.45))
    child = drawn(
        "b",
        ratio_critique(0.40, rejections=["memorised"], score=0.9),
        parent="a",
        round_number=2,
        actions=[f"structured {RATIO}: 0.550 -> 0.650", "fresh noise"],
    )
    assert [one.improved for one in trials_of_round([parent, child], 2)] == [False, False]


def test_overshooting_the_target_into_the_expected_range_helped() -> None:
    parent = drawn("a", ratio_critique(0.49))
    actions = [f"structured {RATIO}: 0.550 -> 0.610"]
    child = drawn("b", ratio_critique(0.66), parent="a", round_number=2, actions=actions)
    (numeric,) = trials_of_round([parent, child], 2)
    assert numeric.after > numeric.before and numeric.improved


def test_an_unmeasured_number_is_no_trial() -> None:
    parent = drawn("a", ratio_critique(0.45))
    mute = Critique(findings=[Finding(finding="cardiomegaly", verdict="abstain")])
    actions = [f"structured {RATIO}: 0.550 -> 0.650"]
    child = drawn("b", mute, parent="a", round_number=2, actions=actions)
    assert trials_of_round([parent, child], 2) == []
    assert measured(mute, RATIO) is None


def test_the_plan_and_the_users_prompt_are_never_touched() -> None:
    before = PLAN.model_dump_json()
    plan_next([drawn("a", unseen_critique("pneumonia"))], count=4)
    assert PLAN.model_dump_json() == before

"""The prompt policy: honest estimates from logged chances, values that shrink, files that last."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from samples import image

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.prompt_policy import (
    EXPLORE,
    Cell,
    Context,
    PromptPolicy,
    load_prompt_policy,
    value_of,
)
from medgen.feedback.prompt_policy_training import (
    LoggedTrial,
    advantages,
    estimate_value,
    judge_policies,
    learn_values,
    train_prompt_policy,
)
from medgen.feedback.records import LoggedCandidate
from medgen.records import Candidate, Conditioning, Critique, Tactic

RECIPES = ["same noise: structured", "fresh noise: emphasis"]
CONTEXTS = [Context("Chest X-ray", "cardiomegaly", "off by a number"),
            Context("Brain MRI", "glioma", "not seen")]  # fmt: skip
TRUE = {  # mean gain of each recipe in each context
    (CONTEXTS[0], RECIPES[0]): 0.30,
    (CONTEXTS[0], RECIPES[1]): 0.05,
    (CONTEXTS[1], RECIPES[0]): -0.10,
    (CONTEXTS[1], RECIPES[1]): 0.20,
}
LOGGING = (0.8, 0.2)  # chances of the recipes when the log was made


def trials(count: int, seed: int) -> list[LoggedTrial]:
    """What the logging policy tried, its gains noisy."""
    draws = np.random.default_rng(seed)
    made = []
    for number in range(count):
        context = CONTEXTS[number % 2]
        which = int(draws.random() >= LOGGING[0])
        gain = TRUE[context, RECIPES[which]] + draws.normal(0, 0.2)
        made.append(
            LoggedTrial(f"p{number}", f"p{number}/0", context, RECIPES[which], LOGGING[which], gain)
        )
    return made


def value(choice: dict[Context, str]) -> float:
    """The true mean gain of a policy that always chooses so."""
    return float(np.mean([TRUE[context, choice[context]] for context in CONTEXTS]))


def weights_of(made: list[LoggedTrial], choice: dict[Context, str]) -> np.ndarray:
    return np.array([(choice[one.context] == one.recipe) / one.propensity for one in made])


def test_estimates_are_unbiased() -> None:
    best = {CONTEXTS[0]: RECIPES[0], CONTEXTS[1]: RECIPES[1]}
    estimates = []
    for seed in range(200):
        made = trials(200, seed)
        weights = weights_of(made, best)
        wrong = np.full(len(made), 0.4)  # a model that is far off: DR must not care
        one = estimate_value(made, weights, wrong, wrong, resamples=100, seed=seed)
        estimates.append((one.ips[0], one.snips[0], one.dr[0]))
    means = np.mean(estimates, axis=0)
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert abs(means - value(best)).max() < 4 * error.max()
    logged = np.mean([one.gain for one in trials(20000, 1)])
    assert value(best) - logged > 0.03, "the plain mean of the log would be another figure"


def test_intervals_hold_the_truth() -> None:
    best = {CONTEXTS[0]: RECIPES[0], CONTEXTS[1]: RECIPES[1]}
    held = 0
    for seed in range(60):
        made = trials(200, 1000 + seed)
        none = np.zeros(len(made))
        one = estimate_value(made, weights_of(made, best), none, none, resamples=300, seed=seed)
        held += one.dr[1] <= value(best) <= one.dr[2]
    assert held >= 50, f"{held} of 60 intervals of 95 %"


def test_a_good_model_narrows_the_doubly_robust_estimate() -> None:
    best = {CONTEXTS[0]: RECIPES[0], CONTEXTS[1]: RECIPES[1]}
    made = trials(400, 3)
    weights = weights_of(made, best)
    exact = np.array([TRUE[one.context, one.recipe] for one in made])
    under = np.array([TRUE[one.context, best[one.context]] for one in made])
    one = estimate_value(made, weights, exact, under)
    assert one.dr[2] - one.dr[1] < one.ips[2] - one.ips[1]


def test_the_learned_policy_finds_the_better_recipe_of_each_context() -> None:
    made = trials(600, 4)
    values = learn_values(made)
    for context in CONTEXTS:
        true = {recipe: TRUE[context, recipe] for recipe in RECIPES}
        learned = {recipe: value_of(values, context, recipe) for recipe in RECIPES}
        assert max(learned, key=learned.__getitem__) == max(true, key=true.__getitem__)
    estimate, fixed = judge_policies(made, RECIPES, seed=0, resamples=500)
    assert estimate.gain[1] > 0, "better than the log, beyond chance"
    assert estimate.dr[0] > max(one.dr[0] for one in fixed.values())
    # 90 % of the best and 5 % of each, as it explores.
    best = {CONTEXTS[0]: RECIPES[0], CONTEXTS[1]: RECIPES[1]}
    worst = {CONTEXTS[0]: RECIPES[1], CONTEXTS[1]: RECIPES[0]}
    true = 0.95 * value(best) + 0.05 * value(worst)
    assert estimate.dr[1] <= true <= estimate.dr[2]


def test_advantages_are_among_the_trials_of_a_parent() -> None:
    """Parents differ by far more than recipes; the better recipe is found all the same."""
    draws, made = np.random.default_rng(8), []
    for number in range(40):
        level = draws.normal(0, 0.5)
        for which in (0, 1, int(draws.integers(2))):
            gain = level + (0.05 if which else 0.0)
            made.append(
                LoggedTrial(f"p{number}", f"p{number}/0", CONTEXTS[0], RECIPES[which], 0.5, gain)
            )
    values = learn_values(made)[""]
    assert values[RECIPES[1]].value > 0.01 > -0.01 > values[RECIPES[0]].value
    assert advantages(made[:3]).sum() == pytest.approx(0.0)


def test_a_single_trial_decides_little() -> None:
    made = [one for one in trials(200, 5) if one.context != CONTEXTS[1]]
    lucky = LoggedTrial("lucky", "lucky/0", CONTEXTS[1], RECIPES[1], 0.2, 1.0)
    learned = value_of(learn_values([*made, lucky]), CONTEXTS[1], RECIPES[1])
    assert learned < 0.5, "one trial of gain 1.0 is shrunk towards wider contexts"


def test_unknown_contexts_fall_back() -> None:
    values = {"": {RECIPES[0]: Cell(value=0.1, trials=9)},
              "|not seen": {RECIPES[0]: Cell(value=0.3, trials=4)}}  # fmt: skip
    other = Context("Fundus", "cataract", "not seen")
    assert value_of(values, other, RECIPES[0]) == 0.3
    assert value_of(values, other._replace(kind="rejected"), RECIPES[0]) == 0.1
    assert value_of(values, other, "never met") == 0.1, "neither better nor worse than usual"
    assert value_of({}, other, "never met") == 0.0


def candidates(run: str, recipe: str, propensity: float, gain: float) -> list[LoggedCandidate]:
    """A parent and the child that a recipe made of it."""
    made = []
    for number, score in enumerate((0.4, 0.4 + gain)):
        tactic = Tactic(recipe=recipe, propensity=propensity, modality="Brain MRI",
                        finding="glioma", kind="not seen") if number else None  # fmt: skip
        made.append(
            LoggedCandidate(
                run=run, prompt=f"glioma {run}", modality="Brain MRI",
                image_sha256=image(f"{run}/{number}"), chosen=False,
                drawn=Candidate(
                    id=str(number), round=1 + number, parent="0" if number else None,
                    image=f"/{run}/{number}.png",
                    conditioning=Conditioning(prompt="glioma", modality="Brain MRI"),
                    critique=Critique(score=score), tactic=tactic,
                ),
            )
        )  # fmt: skip
    return made


def filled(tmp_path: Path, propensity: float, gains: tuple[float, float]) -> FeedbackLog:
    log = FeedbackLog(tmp_path / "log.sqlite")
    draws = np.random.default_rng(0)
    for number in range(60):
        which = number % 2
        gain = gains[which] + (draws.normal(0, 0.02) if gains[0] != gains[1] else 0.0)
        log.append_records(candidates(f"r{number}", RECIPES[which], propensity, gain))
    return log


def test_from_a_log_to_a_file_and_back(tmp_path: Path) -> None:
    log, out = filled(tmp_path, 0.5, (0.0, 0.2)), tmp_path / "policy.json"
    card = train_prompt_policy(log, out)
    assert card.trials == 60 and card.logged is not None and card.estimate is not None
    assert card.logged[0] == pytest.approx(0.1, abs=0.02)
    assert card.estimate.dr[0] == pytest.approx(0.19, abs=0.02), "explores a tenth"
    assert card.estimate.gain[1] > 0 and not card.notes
    policy = load_prompt_policy(out)
    chances = policy.probabilities(Context("Brain MRI", "glioma", "not seen"), RECIPES)
    assert chances == pytest.approx([0.05, 0.95])
    with pytest.raises(BadInput, match="never overwritten"):
        train_prompt_policy(log, out)
    lineage = json.loads(out.read_text())
    assert len(lineage["log_digest"]) == 64 and lineage["log"] == log.name


def test_certain_choices_teach_nothing(tmp_path: Path) -> None:
    log = filled(tmp_path, 1.0, (0.0, 0.2))
    with pytest.raises(BadInput, match=r"has 0 refinements drawn with a known chance .*60 more"):
        train_prompt_policy(log, tmp_path / "policy.json")


def test_equal_gains_teach_nothing(tmp_path: Path) -> None:
    log = filled(tmp_path, 0.5, (0.0, 0.0))
    with pytest.raises(BadInput, match="all 60 refinements gained the same"):
        train_prompt_policy(log, tmp_path / "policy.json")


def test_exploring_is_even_and_needs_no_file() -> None:
    policy = load_prompt_policy(EXPLORE)
    assert policy.probabilities(CONTEXTS[0], ["a", "b", "c", "d"]) == [0.25] * 4
    assert policy.name == PromptPolicy(None).name


@pytest.mark.parametrize("content", [None, "no json", '{"recipes": []}'])
def test_a_broken_policy_is_one_line(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "policy.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match="prompt policy"):
        load_prompt_policy(path)

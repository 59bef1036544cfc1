"""Learning a prompt policy from logged trials, and what it is worth before anyone uses it.

Trials are candidates that a recipe was drawn for with a known probability. Estimates are
cross-fitted by prompt: a trial is never judged by values that were learned from its own prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.errors import BadInput
from medgen.feedback.exchange import log_digest
from medgen.feedback.log import FeedbackLog
from medgen.feedback.prompt_policy import (
    EXPLORATION,
    SHRINKAGE,
    Cell,
    Context,
    PolicyEstimate,
    PromptPolicy,
    PromptPolicyCard,
    save_prompt_policy,
    value_of,
)
from medgen.records import Candidate

LEAST_TRIALS = 40
LEAST_PROMPTS = 10
FOLDS = 5
RESAMPLES = 2000
Values = dict[str, dict[str, Cell]]


class LoggedTrial(NamedTuple):
    """One drawn recipe: in which context, how likely it was, and what it gained (-1 to 1).

    `parent` is the candidate that was refined; several trials may share it.
    """

    prompt: str
    parent: str
    context: Context
    recipe: str
    propensity: float
    gain: float


@dataclass(frozen=True)
class Trials:
    """Trials with a known chance, and how many had none."""

    known: list[LoggedTrial]
    certain: int


def trials_of(log: FeedbackLog) -> Trials:
    """The log's trials; a gain is the critique's score minus the parent's.

    Trials that the rules chose (probability 1) tell nothing of what else would have done; they are
    counted only.
    """
    by_run: dict[str, dict[str, Candidate]] = defaultdict(dict)
    prompts = {}
    for one in log.candidates():
        by_run[one.run][one.drawn.id] = one.drawn
        prompts[one.run] = one.prompt
    known, certain = [], 0
    for run, candidates in by_run.items():
        for drawn in candidates.values():
            parent = candidates.get(drawn.parent or "")
            tactic = drawn.tactic
            if parent is None or tactic is None or not drawn.critique or not parent.critique:
                continue
            if tactic.propensity >= 1:
                certain += 1
                continue
            gain = drawn.critique.score - parent.critique.score
            context = Context(tactic.modality, tactic.finding, tactic.kind)
            place = f"{run}/{parent.id}"
            known.append(
                LoggedTrial(prompts[run], place, context, tactic.recipe, tactic.propensity, gain)
            )
    return Trials(known, certain)


def advantages(trials: Sequence[LoggedTrial]) -> np.ndarray:
    """(n,) each trial's gain minus the mean gain of the others on its parent.

    How much can be gained depends on the parent far more than on the recipe (the best of a round
    is more often followed by worse); recipes are drawn whatever the parent, so that the difference
    keeps their order. Without others on the parent, all others are the measure.
    """
    gains = np.array([trial.gain for trial in trials])
    _, place = np.unique([trial.parent for trial in trials], return_inverse=True)
    sums, counts = np.bincount(place, gains), np.bincount(place)
    alone = counts[place] == 1
    rest = (sums[place] - gains) / np.maximum(counts[place] - 1, 1)
    everywhere = (gains.sum() - gains) / max(len(gains) - 1, 1)
    return gains - np.where(alone, everywhere, rest)


def learn_values(trials: Sequence[LoggedTrial]) -> Values:
    """Each recipe's value in every context met: its mean advantage, shrunk to the wider context's.

    Advantages weigh by 1 / propensity, so that recipes that the logging policy preferred in easy
    cases do not look better than they are; in the widest context values shrink to 0.
    """
    sums: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    for trial, advantage in zip(trials, advantages(trials), strict=True):
        for key in trial.context.widening():
            cell = sums[key][trial.recipe]
            cell[0] += advantage / trial.propensity
            cell[1] += 1 / trial.propensity
            cell[2] += 1
    values: Values = {}
    for key in sorted(sums, key=_narrowness):
        values[key] = {}
        for recipe, (total, weight, count) in sums[key].items():
            wider = 0.0
            for other in _wider(key):
                if recipe in values.get(other, {}):
                    wider = values[other][recipe].value
                    break
            mean = total / weight
            value = (count * mean + SHRINKAGE * wider) / (count + SHRINKAGE)
            values[key][recipe] = Cell(value=round(value, 6), trials=int(count))
    return values


def _narrowness(key: str) -> tuple[int, str]:
    return (0 if key == "" else 1 if key.startswith("|") else key.count("|") + 1), key


def _wider(key: str) -> tuple[str, ...]:
    """The keys that a key's values shrink to, nearest first."""
    parts = key.split("|")
    if len(parts) == 3:
        return (f"{parts[0]}|{parts[2]}", f"|{parts[2]}", "")
    if len(parts) == 2 and parts[0]:
        return (f"|{parts[1]}", "")
    return ("",) if key else ()


def estimate_value(
    trials: Sequence[LoggedTrial],
    weights: np.ndarray,
    predicted: np.ndarray,
    predicted_policy: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PolicyEstimate:
    """A policy's mean gain by three estimators, from trials of the logging policy.

    Args:
        trials: What was logged.
        weights: (n,) the policy's probability of what was tried over the logging policy's.
        predicted: (n,) a model's gain of what was tried, learned without the trial's prompt.
        predicted_policy: (n,) the model's mean gain under the policy.
        resamples: Of prompts, for the intervals.
        seed: Of the resampling.
    """
    gains = np.array([trial.gain for trial in trials])
    robust = predicted_policy + weights * (gains - predicted)
    _, place = np.unique([trial.prompt for trial in trials], return_inverse=True)
    rows = np.stack([weights * gains, weights, robust, gains, np.ones(len(gains))])
    sums = np.stack([np.bincount(place, row) for row in rows])
    draws = np.random.default_rng(seed).integers(sums.shape[1], size=(resamples, sums.shape[1]))
    drawn = sums[:, draws].sum(2)

    def figure(value: float, samples: np.ndarray) -> tuple[float, float, float]:
        low, high = np.percentile(samples, [2.5, 97.5])
        return round(float(value), 4), round(float(low), 4), round(float(high), 4)

    total = sums.sum(1)
    return PolicyEstimate(
        ips=figure(total[0] / total[4], drawn[0] / drawn[4]),
        snips=figure(total[0] / max(total[1], 1e-9), drawn[0] / np.maximum(drawn[1], 1e-9)),
        dr=figure(total[2] / total[4], drawn[2] / drawn[4]),
        gain=figure((total[2] - total[3]) / total[4], (drawn[2] - drawn[3]) / drawn[4]),
        effective=round(float(weights.sum() ** 2 / max((weights**2).sum(), 1e-9)), 1),
    )


def judge_policies(
    trials: Sequence[LoggedTrial], recipes: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> tuple[PolicyEstimate, dict[str, PolicyEstimate]]:
    """Estimates of the policy that these trials teach, and of always trying one recipe.

    Cross-fitted by prompt: the policy and the model of gains that judge a fold never saw it.
    """
    prompts = np.unique([trial.prompt for trial in trials])
    order = np.random.default_rng(seed).permutation(len(prompts))
    fold = dict(zip(prompts[order], np.arange(len(prompts)) % FOLDS, strict=True))
    place = {recipe: index for index, recipe in enumerate(recipes)}
    chosen = np.array([place[trial.recipe] for trial in trials])
    model = np.zeros((len(trials), len(recipes)))
    learned = np.zeros((len(trials), len(recipes)))
    for number in range(FOLDS):
        taught = [trial for trial in trials if fold[trial.prompt] != number]
        values, usual = learn_values(taught), float(np.mean([trial.gain for trial in taught]))
        policy = PromptPolicy(_bare_card(values, recipes))
        for index, trial in enumerate(trials):
            if fold[trial.prompt] == number:
                model[index] = [
                    usual + value_of(values, trial.context, recipe) for recipe in recipes
                ]
                learned[index] = policy.probabilities(trial.context, recipes)
    propensity = np.array([trial.propensity for trial in trials])
    rows = np.arange(len(trials))

    def judged(probabilities: np.ndarray) -> PolicyEstimate:
        return estimate_value(
            trials,
            probabilities[rows, chosen] / propensity,
            model[rows, chosen],
            (probabilities * model).sum(1),
            resamples,
            seed,
        )

    fixed = {
        recipe: judged(np.tile(np.eye(len(recipes))[index], (len(trials), 1)))
        for recipe, index in place.items()
    }
    return judged(learned), fixed


def _bare_card(values: Values, recipes: Sequence[str]) -> PromptPolicyCard:
    return PromptPolicyCard(
        log="",
        log_digest="",
        measure="",
        trials=0,
        prompts=0,
        exploration=EXPLORATION,
        recipes=list(recipes),
        values=values,
    )


def train_prompt_policy(
    log: FeedbackLog, out: Path, exploration: float = EXPLORATION, seed: int = 0
) -> PromptPolicyCard:
    """Learn a policy from a log and write it to a new file.

    Args:
        log: With runs made while a policy drew the recipes (`MEDGEN_PROMPT_POLICY=explore` first).
        out: The file, which must not be there.
        exploration: Share of drawings in which any recipe is tried.
        seed: Of folds and intervals.

    Raises:
        BadInput: The file is there, or too few trials had a known chance; nothing was written.
    """
    if out.exists():
        raise BadInput(f"{out} is there already, and is never overwritten: name another --out")
    found = trials_of(log)
    trials = found.known
    prompts = {trial.prompt for trial in trials}
    if len(trials) < LEAST_TRIALS or len(prompts) < LEAST_PROMPTS:
        rules = f" ({found.certain} more were the rules' own, which tell of nothing else)"
        raise BadInput(
            f"feedback log {log.name} has {len(trials)} refinements drawn with a known chance in "
            f"{len(prompts)} prompts{rules if found.certain else ''}: {LEAST_TRIALS} in "
            f"{LEAST_PROMPTS} are needed; run the agent with MEDGEN_PROMPT_POLICY=explore"
        )
    if len({trial.gain for trial in trials}) == 1:
        raise BadInput(f"all {len(trials)} refinements gained the same: nothing can be learned")
    recipes = sorted({trial.recipe for trial in trials})
    estimate, fixed = judge_policies(trials, recipes, seed)
    ones = np.ones(len(trials))
    logged = estimate_value(trials, ones, ones * 0, ones * 0, seed=seed).ips
    notes = []
    if estimate.gain[2] < 0:
        notes.append("estimated to be worse than what the log did: leave the rules in place")
    elif estimate.gain[1] <= 0:
        notes.append(
            "not shown to be better than what the log did: the interval of the gain holds 0"
        )
    card = _bare_card(learn_values(trials), recipes).model_copy(
        update={
            "log": log.name,
            "log_digest": log_digest(log),
            "measure": "critique score minus the parent's",
            "trials": len(trials),
            "prompts": len(prompts),
            "exploration": exploration,
            "logged": logged,
            "estimate": estimate,
            "fixed": fixed,
            "notes": notes,
        }
    )
    save_prompt_policy(card, out)
    return card

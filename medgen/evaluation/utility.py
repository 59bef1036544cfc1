"""Utility: is a classifier that learned from synthetic images any good on real ones?

A small network is trained on synthetic images, on real ones, and on both 1:1, with the same number
of images a class, steps and seeds, and tested on real images of patients that nobody trained on.
It tells whether synthetic images carry the classes, not how well a large network with all real
images would do. Which classes, on which images: `classes.py`; the training: `arms.py`.
"""

from __future__ import annotations

from dataclasses import replace

from medgen.evaluation.arms import ACCURACY, AREA, BOTH, REAL, RECALL, SYNTHETIC, Score, trainings
from medgen.evaluation.arms import mean as mean_of
from medgen.evaluation.arms import score as score_of
from medgen.evaluation.classes import Task, Untestable, has_sources, label_of, rules, tasks
from medgen.evaluation.context import Context
from medgen.evaluation.figures import (
    OVERALL,
    Difference,
    Figure,
    Outcome,
    Suite,
    interval,
    unmeasured,
)
from medgen.evaluation.leaks import strangers
from medgen.evaluation.small_cnn import Budget
from medgen.settings import settings

SUITE: Suite = "utility"
NO_TRAIN = (
    "no train table: name real training images with labels with --train, so that classifiers can "
    "learn from real images too"
)
NO_LABEL = "the synthetic table has no labels: give each row the class that was asked for"
NO_SOURCE = (
    "no source column in the real and train tables: where classes come from different scanners, "
    "the classifiers may learn the scanner"
)


def default_budget() -> Budget:
    """The budget of `utility.yaml`, with the steps of `MEDGEN_UTILITY_STEPS` where set."""
    budget = Budget(**rules()["budget"])
    steps = settings().utility_steps
    return budget if steps is None else replace(budget, steps=steps)


def measure(context: Context, budget: Budget | None = None) -> Outcome:
    """Balanced accuracy, macro AUC and sensitivities of classifiers by what they learned from.

    A modality's figure is the mean over its sources, "overall" the mean over modalities; cross-
    validated sources count only where a modality has no other, and not overall. Intervals
    resample test patients and training seeds, the same for all arms, so differences are paired.

    Args:
        context: The tables; without `train` only the synthetic arm is measurable.
        budget: Of every training; `default_budget` when None.
    """
    budget = budget or default_budget()
    outcome, real = Outcome(), context.real
    if context.train is None:
        outcome.warnings.append(NO_TRAIN)
    else:
        real, warnings = strangers(context.real, context.train)
        outcome.warnings += warnings
    if not any(label_of(row) for row in context.synthetic.rows):
        outcome.warnings.append(NO_LABEL)
        n = len(context.synthetic)
        outcome.figures.append(
            unmeasured(SUITE, ACCURACY, OVERALL, budget.name, n, NO_LABEL, n_real=len(real))
        )
        return outcome
    if not has_sources(real, context.train):
        outcome.warnings.append(NO_SOURCE)
    found = tasks(real, context.synthetic, context.train, context.seed)
    scores = _scores(context, [one for one in found if isinstance(one, Task)], budget)
    headlines = []
    for modal in context.synthetic.modals:
        measured = [score for score in scores if score.scope == modal]
        failed = [one for one in found if isinstance(one, Untestable) and one.modal == modal]
        for score in measured:
            if len(measured) > 1:
                _write(outcome, budget, score)
            outcome.figures += _sensitivities(budget, score)
        # A source without labelled test images is worth a line only where there is nothing else.
        outcome.figures += [_unmeasured(budget, one) for one in failed if one.real or not measured]
        if measured:
            held_out = [score for score in measured if score.held_out] or measured
            one = held_out[0] if len(held_out) == 1 else mean_of(held_out, modal, "sources")
            headlines.append(replace(one, source=""))
            _write(outcome, budget, headlines[-1])
    held_out = [score for score in headlines if score.held_out]
    if held_out:
        _write(outcome, budget, mean_of(held_out, OVERALL, "modalities"))
    else:
        nothing = Untestable(
            OVERALL, "", "no modality has enough held-out test images", len(context.synthetic),
            len(real),
        )  # fmt: skip
        outcome.figures.append(_unmeasured(budget, nothing))
    return outcome


def _scores(context: Context, doable: list[Task], budget: Budget) -> list[Score]:
    total = sum(trainings(task, budget) for task in doable)
    done = 0

    def trained() -> None:
        nonlocal done
        done += 1
        context.progress("utility: classifiers", done, total)

    return [score_of(context, task, budget, trained) for task in doable]


def _write(outcome: Outcome, budget: Budget, score: Score) -> None:
    """Accuracy and AUC of each arm, and what the arms with synthetic images gain on real ones."""
    for arm in score.arms:
        group = f"{arm}, {score.source}" if score.source else arm
        for metric in (ACCURACY, AREA):
            outcome.figures.append(_figure(budget, score, arm, metric, metric, group))
    for arm in (SYNTHETIC, BOTH):
        for metric in (ACCURACY, AREA):
            if (arm, metric) not in score.values or (REAL, metric) not in score.values:
                continue
            gaps = score.replicates[arm, metric] - score.replicates[REAL, metric]
            low, high = interval(gaps)
            outcome.differences.append(
                Difference(
                    suite=SUITE,
                    metric=f"{metric}, {score.source}" if score.source else metric,
                    scope=score.scope,
                    first=arm,
                    second=REAL,
                    value=score.values[arm, metric] - score.values[REAL, metric],
                    low=low,
                    high=high,
                    n=score.tested,
                    underpowered=not (low > 0 or high < 0),
                )
            )


def _sensitivities(budget: Budget, score: Score) -> list[Figure]:
    """Of each class, how often the classifier that learned from synthetic images names it."""
    figures = []
    for arm, metric in score.values:
        if arm == SYNTHETIC and metric.startswith(RECALL):
            name = metric.removeprefix(f"{RECALL} ")
            group = f"{name}, {score.source}" if score.source else name
            figures.append(_figure(budget, score, SYNTHETIC, metric, RECALL, group))
    return figures


def _figure(budget: Budget, score: Score, arm: str, key: str, metric: str, group: str) -> Figure:
    low, high = score.bounds((arm, key))
    values = {
        "suite": SUITE,
        "metric": metric,
        "scope": score.scope,
        "group": group,
        "scorer": budget.name,
        "better": "higher",
        "value": score.values[arm, key],
        "low": low,
        "high": high,
        "n": 0 if arm == REAL else score.trained,
        "n_real": score.counts.get(key, score.tested),
        "note": score.note,
    }
    if arm != REAL and (REAL, key) in score.values:
        floor_low, floor_high = score.bounds((REAL, key))
        values |= {
            "floor": score.values[REAL, key],
            "floor_low": floor_low,
            "floor_high": floor_high,
            "floor_of": "trained on as many real images a class",
        }
    return Figure.model_validate(values)


def _unmeasured(budget: Budget, one: Untestable) -> Figure:
    return unmeasured(
        SUITE, ACCURACY, one.modal, budget.name, one.synthetic, one.why, n_real=one.real,
        group=one.source,
    )  # fmt: skip

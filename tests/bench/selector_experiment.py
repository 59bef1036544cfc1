"""The selector's figures on a log: by prompt and by request, parts left out, orders of ranking.

    python tests/bench/selector_experiment.py --log ../lab/feedback_set/feedback.sqlite \\
        --train-rater NAME --judge-rater NAME

Images are read once. Everything is cross-fitted. The last table is what the agent's first candidate
would be worth by the order of ranking: the judge's mean rating (0-1), the paired difference from
the verifier's own order, and how often the verifier accepted it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medgen.feedback.log import FeedbackLog
from medgen.feedback.selector_build import Prepared, prepare, verifier_scores
from medgen.feedback.selector_card import Estimate
from medgen.feedback.selector_contest import CLIP, OURS, VERIFIER, bootstrap, contests, won
from medgen.feedback.selector_data import folds_of, judging_scores, judging_votes
from medgen.feedback.selector_settings import SelectorSettings, selector_settings
from medgen.feedback.selector_training import cross_fit

PARTS = ("image", "text", "plan", "critique")
SUBSETS = (
    ("image",), ("critique",), ("image", "critique"), ("image", "text", "plan"),
    ("text", "plan", "critique"), ("image", "plan", "critique"), ("image", "text", "critique"),
)  # fmt: skip
ORDERS = ("rejected, accepted, score", "rejected, accepted, reward", "rejected, reward", "reward")


def shown(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def compare(ready: Prepared, settings: SelectorSettings, title: str) -> np.ndarray:
    data = ready.data
    rewards = cross_fit(ready.features, ready.lessons, data.prompts, ready.folds, settings).rewards
    found = contests(
        {OURS: rewards, CLIP: ready.clip, VERIFIER: verifier_scores(data)},
        judging_votes(data, settings),
        judging_scores(data, settings),
        data.prompts,
        [asked.modality for asked in data.asked],
        settings.resamples,
        settings.seed,
    )
    for one in found:
        print(f"{title}, {one.scope}: {one.preferences} preferences in {one.prompts} groups")
        for name, figure in one.accuracy.items():
            gap = one.difference.get(name)
            chosen = one.chosen.get(name)
            print(
                f"  {name}: {shown(figure)}"
                + (f", selector above by {shown(gap)}" if gap else "")
                + (f", chosen {shown(chosen)}" if chosen else ""),
                flush=True,
            )
    return rewards


def orders(ready: Prepared, settings: SelectorSettings, rewards: np.ndarray) -> None:
    data, prompts = ready.data, ready.data.prompts
    scores = verifier_scores(data)
    rejected = np.array([bool((one.critique or {}).get("rejections")) for one in data.asked])
    accepted = np.array([(one.critique or {}).get("accepted") is True for one in data.asked])
    levels: dict[str, dict[int, float]] = defaultdict(dict)
    for score in judging_scores(data, settings):
        levels[str(prompts[score.row])][score.row] = score.level
    keys = dict(
        zip(
            ORDERS,
            (
                lambda row: (rejected[row], ~accepted[row], -scores[row]),
                lambda row: (rejected[row], ~accepted[row], -rewards[row]),
                lambda row: (rejected[row], -rewards[row]),
                lambda row: -rewards[row],
            ),
            strict=True,
        )
    )
    names = [name for name, rows in levels.items() if len(rows) > 1]
    first = {order: [min(levels[name], key=key) for name in names] for order, key in keys.items()}
    worth = {
        order: np.array([levels[name][row] for name, row in zip(names, rows, strict=True)])
        for order, rows in first.items()
    }
    for order, rows in first.items():
        gap = bootstrap(worth[order] - worth[ORDERS[0]], names, settings.resamples, settings.seed)
        print(
            f"{order}: {worth[order].mean():.3f}, above the verifier's by {shown(gap)}, accepted "
            f"{accepted[rows].mean():.3f}, {len(names)} prompts",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--log", type=Path, required=True)
    arguments.add_argument("--train-rater", required=True)
    arguments.add_argument("--judge-rater", required=True)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    raters = {"train_raters": [given.train_rater], "judge_raters": [given.judge_rater]}
    settings = selector_settings(changes={**raters, "seed": given.seed})
    ready = prepare(FeedbackLog.existing(given.log), settings)
    rewards = compare(ready, settings, "by prompt")
    orders(ready, settings, rewards)
    by_request = replace(ready, data=replace(ready.data, groups="request"))
    folds = folds_of(by_request.data.prompts, settings.folds, settings.seed)
    compare(replace(by_request, folds=folds), settings, "by request")
    judging = judging_votes(ready.data, settings)
    names = [str(ready.data.prompts[vote.better]) for vote in judging]
    for subset in SUBSETS:
        changed = settings.model_copy(update={"parts": {part: part in subset for part in PARTS}})
        crossed = cross_fit(ready.features, ready.lessons, ready.data.prompts, ready.folds, changed)
        figure = bootstrap(won(crossed.rewards, judging), names, settings.resamples, settings.seed)
        print(f"{', '.join(subset)}: {shown(figure)}", flush=True)


if __name__ == "__main__":
    main()

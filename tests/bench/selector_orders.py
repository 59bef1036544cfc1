"""What a prompt's chosen candidate is worth by the order of ranking: which the agent should use.

    python tests/bench/selector_orders.py --log ../lab/feedback_set/feedback.sqlite \\
        --train-rater NAME --judge-rater NAME

Rewards are cross-fitted by prompt. Prints the judge's mean rating (0-1) of the first candidate of
each order, the paired difference from the verifier's own order, and how often the first candidate
was accepted by the verifier.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from medgen.feedback.log import FeedbackLog
from medgen.feedback.selector_build import prepare, verifier_scores
from medgen.feedback.selector_contest import bootstrap
from medgen.feedback.selector_data import judging_scores
from medgen.feedback.selector_settings import selector_settings
from medgen.feedback.selector_training import cross_fit

ORDERS = ("rejected, accepted, score", "rejected, accepted, reward", "rejected, reward", "reward")


def main() -> None:
    torch.set_num_threads(1)
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--log", type=Path, required=True)
    arguments.add_argument("--train-rater", required=True)
    arguments.add_argument("--judge-rater", required=True)
    given = arguments.parse_args()
    settings = selector_settings(
        changes={"train_raters": [given.train_rater], "judge_raters": [given.judge_rater]}
    )
    ready = prepare(FeedbackLog.existing(given.log), settings)
    data = ready.data
    rewards = cross_fit(ready.features, ready.lessons, data.prompts, ready.folds, settings).rewards
    scores = verifier_scores(data)
    rejected = np.array([bool((one.critique or {}).get("rejections")) for one in data.asked])
    accepted = np.array([(one.critique or {}).get("accepted") is True for one in data.asked])
    levels: dict[str, dict[int, float]] = defaultdict(dict)
    for score in judging_scores(data, settings):
        levels[str(data.prompts[score.row])][score.row] = score.level
    chosen: dict[str, list[float]] = defaultdict(list)
    taken: dict[str, list[bool]] = defaultdict(list)
    names = [name for name, rows in levels.items() if len(rows) > 1]
    for name in names:
        keys = {
            ORDERS[0]: lambda row: (rejected[row], ~accepted[row], -scores[row]),
            ORDERS[1]: lambda row: (rejected[row], ~accepted[row], -rewards[row]),
            ORDERS[2]: lambda row: (rejected[row], -rewards[row]),
            ORDERS[3]: lambda row: -rewards[row],
        }
        for order, key in keys.items():
            row = min(levels[name], key=key)
            chosen[order].append(levels[name][row])
            taken[order].append(bool(accepted[row]))
    base = np.array(chosen[ORDERS[0]])
    for order in ORDERS:
        values = np.array(chosen[order])
        gap = bootstrap(values - base, names, settings.resamples, settings.seed)
        print(
            f"{order}: {values.mean():.3f}, difference {gap.value:+.3f} ({gap.low:+.3f} to "
            f"{gap.high:+.3f}), accepted {np.mean(taken[order]):.3f}, {len(names)} prompts"
        )


if __name__ == "__main__":
    main()

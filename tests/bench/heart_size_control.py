"""Does the prompt control the heart? Unselected drawings, measured by the second segmenter.

Run by hand: `python tests/bench/heart_size_control.py --count 40 --seed 100`. Draws as
`medgen generate` does, once composed and once with the prompt as typed (`--raw`), and prints mean
cardiothoracic ratios with 95 % bootstrap intervals, and the response to requested ratios.
"""

import argparse
import json

import numpy as np
from scipy.stats import spearmanr

from medgen.agents.state import noise_seed
from medgen.evaluation.chest import cardiothoracic_ratios
from medgen.generator.backends import load_generator
from medgen.graphs.generate import conditioning_of
from medgen.records import Request
from medgen.settings import settings

PROMPTS = ("cardiomegaly, chest X-ray", "normal heart size, chest X-ray")


def interval(values, seed=0):
    """Mean and its 95 % bootstrap interval."""
    random_ = np.random.default_rng(seed)
    means = random_.choice(values, (2000, len(values))).mean(1)
    return [round(float(v), 4) for v in (np.mean(values), *np.percentile(means, [2.5, 97.5]))]


def ratios(generator, told, count, seed):
    """Measured ratios of `count` unselected drawings, and how many could not be measured."""
    seeds = [noise_seed(seed, index, 1, 0) for index in range(count)]
    pictures = generator.sample([told.model_copy(update={"seed": s}) for s in seeds])
    measured = cardiothoracic_ratios(pictures)
    return [r for r in measured if r is not None], measured.count(None)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=40)
    arguments.add_argument("--seed", type=int, default=100)
    options = arguments.parse_args()
    generator = load_generator(settings())
    for raw in (False, True):
        means = []
        for prompt in PROMPTS:
            _, told = conditioning_of(Request(prompt=prompt), raw)
            values, missing = ratios(generator, told, options.count, options.seed)
            means.append(np.mean(values))
            print(
                json.dumps(
                    {
                        "prompt": prompt,
                        "raw": raw,
                        "n": len(values),
                        "unmeasured": missing,
                        "mean_ci95": interval(values),
                        "sd": round(float(np.std(values)), 4),
                    }
                ),
                flush=True,
            )
        print(json.dumps({"raw": raw, "difference": round(float(means[0] - means[1]), 4)}))
    asked, answered = [], []
    _, told = conditioning_of(Request(prompt="chest X-ray of an adult, PA view, normal"), False)
    for ratio in (0.38, 0.42, 0.46, 0.50, 0.54, 0.58):
        changed = told.model_copy(
            update={"structured": {**told.structured, "cardiothoracic_ratio": ratio}}
        )
        values, _ = ratios(generator, changed, 12, options.seed + 1)
        asked += [ratio] * len(values)
        answered += values
        print(json.dumps({"asked": ratio, "n": len(values), "mean_ci95": interval(values)}))
    print(
        json.dumps(
            {
                "spearman": round(float(spearmanr(asked, answered)[0]), 3),
                "n": len(asked),
                "generator": generator.name,
            }
        )
    )


if __name__ == "__main__":
    main()

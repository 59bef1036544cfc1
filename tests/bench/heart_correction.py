"""A film asked for as cardiomegaly that comes out with a normal heart is corrected by a number.

    python tests/bench/heart_correction.py --cases 20 --seed 400

Draws the composed prompt until so many films were contradicted by the verifier's
ratio; each is refined once, as the agent would, and both films are measured by evaluation's
segmenter. Prints the mean change of the ratio with a 95 % bootstrap interval (2,000 draws), how
often it grew, and how often the corrected film is above 0.50.

    python tests/bench/heart_correction.py --asked 0.55 0.60 0.65 0.70 0.76 --cases 16 --seed 7700

Asks for these ratios instead, each on the same `--cases` noises, and prints what the verifier
measured, accepted and rejected.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from medgen.agents import composer, refiner
from medgen.agents.refiner_situation import measured
from medgen.agents.refiner_words import restated
from medgen.data.images import save_synthetic_png
from medgen.evaluation.chest import cardiothoracic_ratios
from medgen.graphs.agent import Agent
from medgen.graphs.collaborators import shared_collaborators
from medgen.records import Candidate, Conditioning, Plan

PROMPT = "cardiomegaly, chest X-ray of an adult, PA view"
BATCH = 8


def ask(ratios: list[float], composed: Conditioning, plan: Plan, seeds: range) -> None:
    """What comes of asking for each ratio, on the same noises."""
    minds, name = shared_collaborators(), "cardiothoracic_ratio"
    for ratio in ratios:
        change = {
            "prompt": restated(composed.prompt, name, ratio),
            "structured": {**composed.structured, name: ratio},
        }
        told = [composed.model_copy(update={**change, "seed": seed}) for seed in seeds]
        films = [minds.panel.verify(one, plan) for one in minds.generator.sample(told)]
        got = [value for one in films if (value := measured(one, name)) is not None]
        low, middle, high = np.percentile(got, [10, 50, 90])
        print(
            f"asked {ratio:.2f}: measured {middle:.3f} ({low:.3f}-{high:.3f}) on {len(got)} of "
            f"{len(films)}, accepted {np.mean([one.accepted is True for one in films]):.2f}, "
            f"rejected {np.mean([bool(one.rejections) for one in films]):.2f}",
            flush=True,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=20)
    options.add_argument("--seed", type=int, default=400)
    options.add_argument("--most", type=int, default=800, help="films drawn at most")
    options.add_argument("--asked", type=float, nargs="+", help="ratios to ask for instead")
    given = options.parse_args()
    minds, plan = shared_collaborators(), Agent().plan(PROMPT)
    composed = composer.compose(plan, [])
    if given.asked:
        return ask(given.asked, composed, plan, range(given.seed, given.seed + given.cases))
    before, after, drawn = [], [], 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "candidates"
        while len(before) < given.cases and drawn < given.most:
            told = [
                composed.model_copy(update={"seed": given.seed + drawn + n}) for n in range(BATCH)
            ]
            drawn += BATCH
            wrong = []
            for one, pixels in zip(told, minds.generator.sample(told), strict=True):
                name = f"film-{one.seed}"
                film = Candidate(
                    id=name, round=1, image=str(folder / f"{name}.png"), conditioning=one
                )
                film.critique = minds.panel.verify(pixels, plan, generated=True)
                if [f for f in film.critique.findings if f.verdict == "contradicted"]:
                    save_synthetic_png(film.image, pixels)
                    wrong.append((film, pixels))
            wrong = wrong[: given.cases - len(before)]
            better = [
                refiner.refine(
                    plan,
                    composed,
                    [film],
                    [],
                    seed=film.conditioning.seed,
                    round_number=2,
                    count=1,
                    folder=folder,
                )[0].conditioning
                for film, _ in wrong
            ]
            if not wrong:
                continue
            corrected = minds.generator.sample(better)
            before += cardiothoracic_ratios(np.stack([pixels for _, pixels in wrong]))
            after += cardiothoracic_ratios(corrected)
            print(f"{len(before)} cases of {drawn} films", flush=True)
    both = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
    changes = np.array([a - b for b, a in both])
    chance = np.random.default_rng(0)
    means = [chance.choice(changes, len(changes)).mean() for _ in range(2000)]
    told_of = {
        "drawn": drawn,
        "cases": len(before),
        "both measurable": len(both),
        "mean before": float(np.mean([b for b, _ in both])),
        "mean after": float(np.mean([a for _, a in both])),
        "mean change": float(changes.mean()),
        "interval": [float(v) for v in np.percentile(means, [2.5, 97.5])],
        "larger": float((changes > 0).mean()),
        "above 0.50 after": float(np.mean([a > 0.5 for _, a in both])),
    }
    print(json.dumps(told_of, indent=1))


if __name__ == "__main__":
    main()

"""Draws runs of five modalities, replays each, and says how many gave the same bytes.

    python tests/bench/replay_runs.py FOLDER --runs 20

One round of one candidate beside the control, two sampling steps (MEDGEN_STEPS); prompts take
turns, seeds count up. The figures are in docs/experiments/agent.md.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import cycle, islice
from pathlib import Path

PROMPTS = (
    "cardiomegaly, chest X-ray",
    "lung cancer, chest CT",
    "meningioma, brain MRI",
    "glaucoma, fundus",
    "macular edema, OCT",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    os.environ.setdefault("MEDGEN_STEPS", "2")
    os.environ.setdefault("MEDGEN_MICRO_BATCH", "2")
    os.environ["MEDGEN_FEEDBACK"] = "off"
    os.environ["MEDGEN_RUNS"] = str(given.folder)

    from medgen.graphs.agent import Agent
    from medgen.graphs.replaying import replay
    from medgen.graphs.run_folder import RunFolder

    agent, same, images = Agent(), 0, 0
    started = time.monotonic()
    for seed, prompt in enumerate(islice(cycle(PROMPTS), given.runs)):
        run = agent.run(prompt, seed=seed, rounds=1, candidates=1)
        found = replay(RunFolder.open(run.folder), agent=agent)
        same += found.identical
        images += len(found.images)
        said = "identical" if found.identical else f"differs at {found.first_difference}"
        seconds = time.monotonic() - started
        print(
            f"{seed + 1:3} {prompt}: {said}, {len(found.images)} images, {seconds:.0f} s",
            flush=True,
        )
    print(f"{same} of {given.runs} runs identical, {images} images")


if __name__ == "__main__":
    main()

"""Agent runs that try the refiner's recipes evenly, so that a prompt policy can be learned.

    MEDGEN_FEEDBACK=../lab/explore.sqlite MEDGEN_PROMPT_POLICY=explore \\
        python tests/bench/explore_recipes.py --out ../lab/explore

Whole runs of the product over the prompts of feedback_set.py, few steps each. What was drawn, what
the verifier said and the chance of every recipe are in the log; nothing is picked. A stopped run
goes on. With another MEDGEN_PROMPT_POLICY, or none, the same runs show what a policy is worth.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from feedback_set import prompts

from medgen.graphs.agent import Agent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--candidates", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=9000)
    arguments.add_argument("--most", type=int, help="at most so many prompts")
    arguments.add_argument("--from", dest="first", type=int, default=0, help="the first of them")
    given = arguments.parse_args()
    agent, accepted, drawn = Agent(), 0, 0
    listed = list(enumerate(prompts()))[given.first : given.most]
    for count, (number, (modality, prompt)) in enumerate(listed, start=1):
        folder = given.out.resolve() / f"run-{number:04d}"
        if not (folder / "run.json").exists():
            agent.run(
                prompt,
                modality,
                seed=given.seed + number,
                rounds=given.rounds,
                candidates=given.candidates,
                steps=given.steps,
                out=folder,
            )
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        accepted, drawn = accepted + (run["accepted"] is True), drawn + run["candidates"]
        print(f"{count} of {len(listed)}: {accepted} accepted of {drawn} drawn", flush=True)


if __name__ == "__main__":
    main()

"""What the agent's loop gains: control, as many unrefined draws as the run used, and the run.

    python tests/bench/loop_gain.py --seeds 8 --out FOLDER ["PROMPT" ...]

For each prompt and seed one agent run. Beside it stand its control (one draw of the prompt as
typed), the best of as many draws of the prompt as typed as the run drew candidates (selection
alone, at equal budget), and the same for composed draws (reasoning and selection, no refinement).
Accepted is the verifier's word, which is what the loop works on: this measures the loop, not the
truth of the images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from medgen.agents.selector import rank
from medgen.agents.state import noise_seed
from medgen.graphs.agent import Agent
from medgen.graphs.collaborators import shared_collaborators
from medgen.graphs.outcome import RunResult
from medgen.records import Candidate, Conditioning, Plan

PROMPTS = (
    "cardiomegaly, chest X-ray",
    "severe cardiomegaly, chest X-ray",
    "normal heart size, chest X-ray",
    "pneumonia of the left lung, chest X-ray",
    "glioma, brain MRI",
    "subretinal fluid, OCT",
)


def accepted_of_draws(told: Conditioning, plan: Plan, seed: int, count: int) -> bool:
    """Whether the best of `count` draws told the same, on the run's own noise, is accepted."""
    minds = shared_collaborators()
    noise = [noise_seed(seed, 0, 1, number) for number in (0, *range(2, count + 1))]
    pictures = minds.generator.sample([told.model_copy(update={"seed": one}) for one in noise])
    drawn = [
        Candidate(
            id=str(number),
            round=1,
            image="",
            conditioning=told,
            critique=minds.panel.verify(picture, plan),
        )
        for number, picture in enumerate(pictures)
    ]
    best = rank(drawn)[0].critique
    return best is not None and best.accepted is True


def told_first(run: RunResult) -> dict[str, Conditioning]:
    """What the run's control and its composed candidates of the first round were told."""
    event = next(event for event in run.events if event.node == "compose")
    return {
        name: Conditioning.model_validate(event.outputs[name]) for name in ("control", "composed")
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("prompts", nargs="*", default=PROMPTS)
    options.add_argument("--seeds", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--candidates", type=int, default=2)
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_intermixed_args()
    agent = Agent()
    for place, prompt in enumerate(given.prompts):
        plan = agent.plan(prompt)
        counts = dict.fromkeys(("control", "unrefined", "composed", "run"), 0)
        used = 0
        for seed in range(given.seeds):
            run = agent.run(
                prompt,
                seed=seed,
                rounds=given.rounds,
                candidates=given.candidates,
                out=given.out / f"{place}-{seed}",
            )
            told = told_first(run)
            used += run.candidates
            counts["control"] += run.control.accepted is True
            counts["run"] += run.accepted is True
            for name, key in (("unrefined", "control"), ("composed", "composed")):
                counts[name] += accepted_of_draws(told[key], plan, seed, run.candidates)
        line = {"prompt": prompt, "seeds": given.seeds, "candidates": used / given.seeds, **counts}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

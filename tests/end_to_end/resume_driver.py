"""Kills agent runs with SIGKILL in every node, goes on with each in a new process, and tells.

A script, run by `test_resume.py` and by hand:

    python tests/end_to_end/resume_driver.py FOLDER [--real] [--images N] [PROMPT]

It draws one unbroken run, then for each of its steps forks a process that is killed there: when
the node has done its work and written its files, but before its checkpoint is ("after"), before
the first node ("before"), and with half of a round's candidates on disk ("midway"). Another
process resumes. Prints one JSON object: the unbroken run's steps, and for every kill the signal,
what lay in the folder, and whether the final images are the unbroken run's byte for byte. With
`--real` the project's own generator and panel draw and verify; else the tests' phantom.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "graphs"))

from phantom import phantom_collaborators

from medgen.agents import parser
from medgen.graphs import agent as agent_module
from medgen.graphs import nodes
from medgen.graphs.agent import Agent
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.records import Request

traced = agent_module.traced
save_candidate = nodes.save_synthetic_png


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(step: int, when: str) -> None:
    """Make this process die at the given step, counted from 0 over the whole run."""
    ended = 0

    def deadly(node: Any, collaborators: Collaborators) -> Callable[[Any], Any]:
        inner = traced(node, collaborators)

        def run(state: Any) -> Any:
            nonlocal ended
            if ended == step and when == "before":
                kill()
            update = inner(state)
            if ended == step and when == "after":
                kill()
            ended += 1
            return update

        return run

    def save_then_die(*args: Any) -> Path:
        written = save_candidate(*args)
        if ended == step and when == "midway":
            kill()
        return written

    agent_module.traced = deadly
    nodes.save_synthetic_png = save_then_die


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked process; its wait status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def digests(run: dict[str, Any]) -> list[str]:
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in run["images"]]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("prompt", nargs="?", default="cardiomegaly, chest X-ray")
    options.add_argument("--real", action="store_true")
    options.add_argument("--images", type=int, default=1)
    given = options.parse_intermixed_args()
    collaborators = shared_collaborators() if given.real else phantom_collaborators()
    request = {"seed": 3, "images": given.images, "rounds": 3}

    def draw(out: Path, **more: Any) -> None:
        run = Agent(collaborators).run(given.prompt, out=out, **request, **more)
        (out / "answer.json").write_text(run.model_dump_json())

    def resume(out: Path) -> None:
        run = Agent(collaborators).run(resume=out)
        (out / "answer.json").write_text(run.model_dump_json())

    # Imported before forking, so that each process starts warm. Models and store are loaded by
    # each process itself: their threads would not come along. The store is built by the first.
    import lightrag.lightrag
    import torch

    torch.set_num_threads(1)
    _ = lightrag
    parser.parse(Request(prompt=given.prompt))
    assert in_child(lambda: [collaborators.store]) == 0
    unbroken = given.folder / "unbroken"
    assert in_child(lambda: draw(unbroken)) == 0
    whole = json.loads((unbroken / "answer.json").read_text())
    lines = (unbroken / "trace.jsonl").read_text().splitlines()
    steps = [json.loads(line)["node"] for line in lines]
    kills = [(0, "before"), *((step, "after") for step in range(len(steps)))]
    kills += [(step, "midway") for step, node in enumerate(steps) if node == "generate"]
    told = []
    for step, when in kills:
        out = given.folder / f"{when}-{step:02d}-{steps[step]}"

        def killed(step: int = step, when: str = when, out: Path = out) -> None:
            kill_at(step, when)
            draw(out)

        status = in_child(killed)
        left = sorted(path.name for path in out.glob("candidates/*"))
        finished = in_child(lambda out=out: resume(out)) == 0  # type: ignore[misc]
        answer = json.loads((out / "answer.json").read_text()) if finished else None
        trace = (out / "trace.jsonl").read_text().splitlines() if finished else []
        told.append(
            {
                "node": steps[step],
                "when": when,
                "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                "left": left,
                "resumed": finished,
                "same": answer is not None and digests(answer) == digests(whole),
                "steps": [json.loads(line)["node"] for line in trace],
            }
        )
    print(json.dumps({"steps": steps, "accepted": whole["accepted"], "kills": told}))


if __name__ == "__main__":
    main()

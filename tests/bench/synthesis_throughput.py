"""A batch of tasks against loops of single agent runs over the same prompts.

    python tests/bench/synthesis_throughput.py FOLDER [--tasks 16] [--looped 4]

Three ways to make the same images: `medgen agent` started anew for each, one process that calls
`Agent().run` again and again, and `medgen synthesize` with one worker. The loops make the first
`--looped` tasks of the batch, with the batch's own seeds. Prints one JSON object: seconds on the
clock and of processor time a task and a candidate, and the ratios. On a busy machine only the
processor's time compares.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from medgen.graphs.synthesis_cells import task_seed
from medgen.graphs.synthesis_journal import Journal

PROMPTS = (
    "cardiomegaly, chest X-ray",
    "glioma, brain MRI",
    "glaucoma, fundus photograph",
    "lung adenocarcinoma, chest CT",
    "normal chest X-ray",
    "pituitary tumor, brain MRI",
    "cataract, fundus photograph",
    "pneumonia, chest X-ray",
)
SEED = 5
LOOP = """\
import json, sys, time
from medgen.graphs.agent import Agent
agent = Agent()
for prompt, seed, out in json.loads(sys.argv[1]):
    run = agent.run(prompt, seed=seed, out=out)
    print(run.candidates, flush=True)
"""


def timed(command: list[str]) -> tuple[float, float, str]:
    """Seconds on the clock and of processor time that a command took, and what it printed."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if answer.returncode not in (0, 3):
        raise SystemExit(answer.stderr)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - clock, busy, answer.stdout


def account(tasks: int, candidates: int, clock: float, busy: float) -> dict[str, Any]:
    return {
        "tasks": tasks,
        "candidates": candidates,
        "seconds a task": round(clock / tasks, 2),
        "processor seconds a task": round(busy / tasks, 2),
        "processor seconds a candidate": round(busy / candidates, 3),
    }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--tasks", type=int, default=16)
    options.add_argument("--looped", type=int, default=4)
    given = options.parse_args()
    given.folder.mkdir(parents=True)
    os.environ.update(MEDGEN_THREADS="1", OMP_NUM_THREADS="1", MEDGEN_FEEDBACK="off")
    names = [f"task{number:03d}" for number in range(given.tasks)]
    prompts = {name: PROMPTS[number % len(PROMPTS)] for number, name in enumerate(names)}
    table = given.folder / "prompts.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(["id", "prompt"])
        lines.writerows(prompts.items())
    told: dict[str, Any] = {}
    medgen = [sys.executable, "-m", "medgen.cli"]

    batch = given.folder / "batch"
    clock, busy, _ = timed(
        [
            *medgen,
            "synthesize",
            str(table),
            "--out",
            str(batch),
            "--workers",
            "1",
            "--seed",
            str(SEED),
            "--json",
        ]
    )
    journal = Journal(batch / "journal.sqlite")
    told["batch"] = account(given.tasks, journal.counts()["drawn"], clock, busy)
    told["batch"]["worker seconds"] = {
        kind: round(seconds, 1) for kind, seconds in journal.sessions()[-1][3].items()
    }
    same = {name: len(journal.attempts(name)) for name in names[: given.looped]}
    journal.close()

    clock = busy = 0.0
    drawn = []
    for name in names[: given.looped]:
        one, processor, answer = timed(
            [
                *medgen,
                "agent",
                prompts[name],
                "--seed",
                str(task_seed(SEED, name) % 2**32),
                "--out",
                str(given.folder / f"agent-{name}"),
                "--json",
            ]
        )
        clock, busy = clock + one, busy + processor
        drawn.append(int(json.loads(answer)["candidates"]))
    told["medgen agent, anew each"] = account(given.looped, sum(drawn), clock, busy)

    asked = [
        (prompts[name], task_seed(SEED, name), str(given.folder / f"loop-{name}"))
        for name in names[: given.looped]
    ]
    clock, busy, answer = timed([sys.executable, "-c", LOOP, json.dumps(asked)])
    drawn = [int(line) for line in answer.split()]
    told["Agent().run in a loop"] = account(given.looped, sum(drawn), clock, busy)
    # The loop's seeds are the batch's own: it must have drawn the same number of candidates.
    told["same course"] = drawn == list(same.values())
    per = "processor seconds a candidate"
    told["ratios"] = {
        way: round(told[way][per] / told["batch"][per], 2)
        for way in told
        if isinstance(told[way], dict) and way != "batch"
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()

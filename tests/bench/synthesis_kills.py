"""Kills dataset runs at random moments with SIGKILL, goes on with them, and compares.

A script, run by `tests/end_to_end/test_synthesis_kills.py` with few kills, and by hand:

    python tests/bench/synthesis_kills.py FOLDER [--kills 30] [--seed 0] [--workers 2] [--real]

One run is never touched. Another one is killed again and again: the engine, one of its workers,
or all at once, chosen and timed at random; after the engine was killed a new process goes on with
`--resume`. Prints one JSON object: the kills, what was drawn before each, whether any candidate
was drawn twice, and whether both datasets are the same byte for byte. With `--real` the project's
own generator and panel draw and verify, else the tests' phantom, slowed down.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "graphs"))

import numpy as np
from inline_crew import BatchingPhantom
from phantom import phantom_collaborators

from medgen.graphs import synthesis, synthesis_crew, synthesis_engine
from medgen.graphs.collaborators import Collaborators

SPEC = """\
seed: 11
images:
  - {{modality: Chest X-ray, each: {each}, findings: [cardiomegaly, normal heart size],
     sex: [female, male]}}
budget: {{tasks_an_image: 3, retries: 20}}
diversity: {{near_copies: {near_copies}, pool: 1.2}}
"""
BATCH_SECONDS = 0.1
EARLY = 0.2
"""Share of the kills that come while a process is still starting."""
OWN = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "dataset.json")


class SlowPhantom(BatchingPhantom):
    """Takes its time, so that a kill comes while it draws; tells what it drew on a file."""

    def sample(self, conditionings: Any) -> np.ndarray:
        time.sleep(BATCH_SECONDS)
        return super().sample(conditionings)


def slow_minds(_options: object) -> Collaborators:
    return phantom_collaborators(SlowPhantom())


def in_child(work: Any) -> int:
    """Fork a process in a group of its own; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    os.setsid()
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def workers_of(engine: int) -> list[int]:
    try:
        told = Path(f"/proc/{engine}/task/{engine}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in told.split()]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OWN
    }


def drawn(folder: Path) -> int:
    """How many candidates the journal has."""
    import sqlite3

    place = folder / "journal.sqlite"
    if not place.is_file():
        return 0
    database = sqlite3.connect(f"file:{place}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT COUNT(*) FROM attempts").fetchone()[0])
    finally:
        database.close()


def await_work(child: int, folder: Path) -> None:
    """Wait until a process has drawn something, or ends."""
    before = drawn(folder)
    while drawn(folder) == before and Path(f"/proc/{child}").exists():
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.02)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--kills", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--each", type=int, default=12)
    options.add_argument(
        "--seconds", type=float, default=1.0, help="latest moment of a kill, after work began"
    )
    options.add_argument("--real", action="store_true")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    spec = given.folder / "spec.yaml"
    # Phantom films are all near copies of each other.
    text = SPEC.format(each=given.each, near_copies=str(given.real).lower())
    spec.write_text(text, encoding="utf-8")
    synthesis_crew.START_METHOD = "fork"  # warm at once: kills shall hit the work, not imports
    synthesis_engine.PATIENCE = 0.05
    synthesis._write_card = lambda *_given: None  # says when it was made
    minds = None if given.real else slow_minds

    def make(out: Path) -> None:
        outcome = synthesis.synthesize(spec, out, workers=given.workers, resume=True, minds=minds)
        (given.folder / f"{out.name}.json").write_text(outcome.model_dump_json())

    # Imported before forking, so that each process starts warm; models are loaded by each.
    import lightrag.lightrag
    import torch

    torch.set_num_threads(1)
    _ = lightrag
    clock = time.monotonic()
    assert os.waitpid(in_child(lambda: make(given.folder / "whole")), 0)[1] == 0
    unbroken = time.monotonic() - clock

    dice, told, killed = random.Random(given.seed), [], given.folder / "killed"
    child = 0
    while len(told) < given.kills:
        if not child:
            child = in_child(lambda: make(killed))
        working = dice.random() >= EARLY
        if working:
            await_work(child, killed)
        time.sleep(dice.uniform(0, given.seconds))
        if os.waitpid(child, os.WNOHANG)[0]:
            raise SystemExit(f"the run ended after {len(told)} kills: ask for more images")
        victim = dice.choice(["engine", "worker", "all"])
        before = drawn(killed)
        workers = workers_of(child)
        if victim == "worker" and workers:
            os.kill(dice.choice(workers), signal.SIGKILL)
        else:
            victim = "all" if victim == "all" else "engine"
            (os.killpg if victim == "all" else os.kill)(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            assert os.WTERMSIG(status) == signal.SIGKILL
            child = 0
        told.append({"victim": victim, "drawn": before, "working": working})
    child = child or in_child(lambda: make(killed))
    finished = os.waitpid(child, 0)[1] == 0
    whole, parts = (
        json.loads((given.folder / f"{name}.json").read_text()) if finished else {}
        for name in ("whole", "killed")
    )
    print(
        json.dumps(
            {
                "kills": told,
                "while working": sum(kill["working"] for kill in told),
                "victims": Counter(kill["victim"] for kill in told),
                "finished": finished,
                "seconds unbroken": round(unbroken, 1),
                "kept": [whole.get("kept"), parts.get("kept")],
                "drawn": [whole.get("drawn"), parts.get("drawn")],
                "never less": [k["drawn"] for k in told] == sorted(k["drawn"] for k in told),
                "same": digests(given.folder / "whole") == digests(killed),
                "files": len(digests(killed)),
            }
        )
    )


if __name__ == "__main__":
    main()

"""One agent shared by threads: no run's pictures in another's, and runs that are stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from phantom import PhantomGenerator, phantom_collaborators

from medgen.errors import Cancelled
from medgen.graphs.agent import Agent
from medgen.records import Conditioning, TraceEvent

PROMPT = "cardiomegaly, chest X-ray"


class OneAtATime(PhantomGenerator):
    """Fails when two threads draw at once."""

    def __init__(self) -> None:
        super().__init__()
        self.drawing = threading.Lock()

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        assert self.drawing.acquire(blocking=False), "two threads draw at once"
        try:
            time.sleep(0.02)
            return super().sample(conditionings)
        finally:
            self.drawing.release()


def test_threads_share_an_agent_and_get_what_each_would_get_alone(runs: Path) -> None:
    shared = Agent(phantom_collaborators(generator=OneAtATime()))
    prompts = [PROMPT, "no cardiomegaly, chest X-ray", "pneumothorax, chest X-ray"]
    asked = [(prompt, seed) for seed in (1, 2) for prompt in prompts]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda one: shared.run(one[0], seed=one[1], rounds=2), asked))
    alone = [
        Agent(phantom_collaborators()).run(prompt, seed=seed, rounds=2) for prompt, seed in asked
    ]
    for one, other, (prompt, seed) in zip(together, alone, asked, strict=True):
        assert (one.request.prompt, one.request.seed) == (prompt, seed)
        assert Path(one.images[0]).read_bytes() == Path(other.images[0]).read_bytes()
        assert [event.node for event in one.events] == [event.node for event in other.events]
        assert one.findings == other.findings
    assert len({run.run_id for run in together}) == len(asked)


@pytest.mark.parametrize("stop_after", ["parse", "compose", "generate", "select"])
def test_a_callback_stops_a_run_that_then_goes_on_where_it_was(
    agent: Agent, runs: Path, stop_after: str
) -> None:
    def stop(event: TraceEvent) -> None:
        if event.node == stop_after:
            raise Cancelled("not wanted any more")

    with pytest.raises(Cancelled, match="not wanted"):
        agent.run(PROMPT, seed=5, rounds=2, on_event=stop)
    (folder,) = runs.iterdir()
    assert not (folder / "run.json").exists()
    later: list[str] = []
    run = agent.run(resume=folder, on_start=later.append)
    assert "parse" not in later and "record" in later
    assert [event.node for event in run.events].count("parse") == 1
    whole = agent.run(PROMPT, seed=5, rounds=2)
    assert Path(run.images[0]).read_bytes() == Path(whole.images[0]).read_bytes()

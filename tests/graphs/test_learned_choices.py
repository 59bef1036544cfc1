"""A learned selector and a prompt policy in whole runs: who decided is in the trace and the log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from phantom import PhantomGenerator, phantom_collaborators

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.selector_asked import Asked
from medgen.graphs.agent import Agent
from medgen.records import TraceEvent
from medgen.settings import settings

PROMPT = "cardiomegaly, chest X-ray"


class DarkerIsBetter:
    """A reward of a test's own, and what it was asked."""

    name = "selector test (simulated labels)"

    def __init__(self, usable: bool = True) -> None:
        self.card = SimpleNamespace(usable=usable, why="does not beat chance")
        self.asked: list[Asked] = []

    def score(self, images: np.ndarray, every: Sequence[Asked]) -> np.ndarray:
        self.asked += every
        return -images.reshape(len(images), -1).mean(1)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeedbackLog]:
    monkeypatch.setenv("MEDGEN_FEEDBACK", str(tmp_path / "log.sqlite"))
    settings.cache_clear()
    yield FeedbackLog()
    settings.cache_clear()


def events(trace: str, node: str) -> list[TraceEvent]:
    lines = Path(trace).read_text(encoding="utf-8").splitlines()
    every = [TraceEvent.model_validate(json.loads(line)) for line in lines]
    return [one for one in every if one.node == node]


def agent_with(reward: DarkerIsBetter) -> Agent:
    minds = phantom_collaborators()
    minds.__dict__["reward"] = reward
    return Agent(minds)


def test_a_usable_selector_ranks_and_is_named(runs: Path, log: FeedbackLog) -> None:
    reward = DarkerIsBetter()
    run = agent_with(reward).run(PROMPT, seed=3, rounds=2, candidates=3)
    selections = events(run.trace, "select")
    assert {one.decided_by for one in selections} == {reward.name}
    logged = log.candidates()
    assert all(one.drawn.reward is not None for one in logged)
    assert selections[0].outputs["rewards"] == {
        one.drawn.id: one.drawn.reward for one in logged if one.drawn.round == 1
    }
    assert len(reward.asked) == len(logged), "each candidate is looked at once"
    assert {one.prompt for one in reward.asked} == {PROMPT}, "never the refined prompt"
    accepted = [o for o in logged if o.drawn.critique and o.drawn.critique.accepted]
    pool = accepted or logged
    best = max(pool, key=lambda one: one.drawn.reward or 0.0)
    assert best.chosen


def test_one_that_beats_nobody_is_not_used(runs: Path, log: FeedbackLog) -> None:
    reward = DarkerIsBetter(usable=False)
    run = agent_with(reward).run(PROMPT, seed=3, rounds=1)
    (selection,) = events(run.trace, "select")
    assert selection.decided_by == f"rules; {reward.name}: not usable: does not beat chance"
    assert not reward.asked
    assert all(one.drawn.reward is None for one in log.candidates())


@pytest.mark.parametrize(
    ("variable", "match"),
    [("MEDGEN_SELECTOR", "no selector in"), ("MEDGEN_PROMPT_POLICY", "no prompt policy at")],
)
def test_what_is_missing_is_said_before_anything_is_drawn(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, match: str
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    settings.cache_clear()
    generator = PhantomGenerator()
    with pytest.raises(BadInput, match=match):
        Agent(phantom_collaborators(generator)).run(PROMPT, rounds=1)
    assert generator.batches == []


def test_recipes_are_drawn_with_their_chance(
    runs: Path, log: FeedbackLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDGEN_PROMPT_POLICY", "explore")
    settings.cache_clear()
    run = Agent(phantom_collaborators()).run(PROMPT, seed=5, rounds=3, candidates=4)
    refined = [one.drawn for one in log.candidates() if one.drawn.parent]
    assert len(refined) >= 4
    tactics = [one.tactic for one in refined if one.tactic]
    assert len(tactics) == len(refined)
    assert len({one.propensity for one in tactics}) == 1 and tactics[0].propensity < 0.5
    assert {one.kind for one in tactics} == {"off by a number"}
    first = events(run.trace, "refine")[0]
    assert first.decided_by == "prompt policy explore"
    again = Agent(phantom_collaborators()).run(PROMPT, seed=5, rounds=3, candidates=4)
    assert [one.outputs["recipes"] for one in events(again.trace, "refine")] == [
        one.outputs["recipes"] for one in events(run.trace, "refine")
    ]


def test_without_a_policy_the_recipes_keep_their_turn(runs: Path, log: FeedbackLog) -> None:
    run = Agent(phantom_collaborators()).run(PROMPT, seed=5, rounds=2, candidates=2)
    refined = [one.drawn for one in log.candidates() if one.drawn.parent]
    assert refined and all(one.tactic and one.tactic.propensity == 1 for one in refined)
    assert {one.decided_by for one in events(run.trace, "refine")} == {"rules"}

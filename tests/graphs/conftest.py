"""The graph's collaborators for tests: phantom generator and panel, the project's own knowledge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from inline_crew import SPEC, InlineCrew, Make, minds
from phantom import phantom_collaborators

from medgen.graphs import synthesis, synthesis_engine
from medgen.graphs.agent import Agent
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.synthesis import Outcome, synthesize
from medgen.graphs.synthesis_worker import Setup
from medgen.settings import settings


@pytest.fixture(scope="session", autouse=True)
def own_knowledge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The store of these tests lies in a folder of theirs, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_KNOWLEDGE", str(tmp_path_factory.mktemp("knowledge")))
        settings.cache_clear()
        yield
    settings.cache_clear()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, not there yet, that receives runs."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("MEDGEN_RUNS", str(folder))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def agent(runs: Path) -> Agent:
    """An agent with a phantom generator and panel."""
    return Agent(phantom_collaborators())


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a dataset with a crew in this process; keeps the crews in `make.crews`."""
    monkeypatch.setattr(synthesis_engine, "PATIENCE", 0)
    monkeypatch.setattr(synthesis, "_write_card", lambda *_given: None)

    def run(
        out: str,
        text: str = SPEC,
        workers: int = 1,
        deaths: Sequence[int] = (),
        collaborators: Callable[[], Collaborators] = minds,
        name: str = "spec.yaml",
        reasoning: Callable[..., Collaborators] = minds,
        **more: Any,
    ) -> Outcome:
        spec = tmp_path / name
        spec.write_text(text, encoding="utf-8")

        def crew(*given: Any) -> InlineCrew:
            setup: Setup = given[3]
            run.crew = InlineCrew(workers, setup, set(deaths), collaborators)  # type: ignore[attr-defined]
            return run.crew  # type: ignore[attr-defined, no-any-return]

        monkeypatch.setattr(synthesis, "_crew", crew)
        place = out if "://" in out else tmp_path / out
        return synthesize(spec, place, minds=lambda _options: reasoning(), **more)

    return run

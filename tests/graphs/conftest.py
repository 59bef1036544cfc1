"""The graph's collaborators for tests: phantom generator and panel, the project's own knowledge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from phantom import phantom_collaborators

from medgen.graphs.agent import Agent
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

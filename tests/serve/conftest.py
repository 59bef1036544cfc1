"""Servers for tests, each with a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from phantom_server import PROMPT, Serve, drawn, served

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
def serve(tmp_path: Path) -> Serve:
    """Starts a server in this test's own folder."""
    return lambda **options: served(tmp_path, **options)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that the tests of a module share."""
    with served(tmp_path_factory.mktemp("server")) as client:
        yield client


@pytest.fixture(scope="module")
def finished(client: TestClient) -> dict[str, Any]:
    """A finished run of two rounds on the shared server."""
    return drawn(client, prompt=PROMPT, seed=3, rounds=2)

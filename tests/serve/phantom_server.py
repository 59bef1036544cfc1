"""A server in this process with a phantom generator and panel, and what its clients do."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1] / "graphs"))

from phantom import PhantomGenerator, phantom_collaborators

from medgen.access import Access
from medgen.graphs.agent import Agent
from medgen.records import Conditioning
from medgen.serve.app import application
from medgen.serve.limits import Limits
from medgen.settings import settings

ADDRESS = "http://127.0.0.1"
PROMPT = "cardiomegaly, chest X-ray"
PATIENCE = 120.0

Serve = Callable[..., Any]


class Gate(PhantomGenerator):
    """Draws only while its gate is open, so that a test says when a run is in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        self.reached.set()
        assert self.open.wait(PATIENCE)
        return super().sample(conditionings)


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Runs and ratings go into a folder while the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_RUNS", str(folder / "runs"))
        patch.setenv("MEDGEN_FEEDBACK", str(folder / "feedback.sqlite"))
        settings.cache_clear()
        yield
    settings.cache_clear()


@contextmanager
def served(
    folder: Path,
    generator: PhantomGenerator | None = None,
    limits: Limits | None = None,
    access: Access | None = None,
    origins: list[str] | None = None,
) -> Iterator[TestClient]:
    """A client of a server that works while the context lasts."""
    with own_folder(folder):
        agent = Agent(phantom_collaborators(generator))
        app = application(access or Access("127.0.0.1"), limits, agent=agent, origins=origins)
        with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
            yield client


def asked(client: TestClient, **body: Any) -> str:
    answer = client.post("/runs", json={"prompt": PROMPT, "rounds": 1, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def ended(client: TestClient, run_id: str) -> dict[str, Any]:
    """How a run stands once it has ended."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        view: dict[str, Any] = client.get(f"/runs/{run_id}").json()
        if view["status"] not in ("queued", "running"):
            return view
        time.sleep(0.05)
    raise AssertionError(f"run {run_id} has not ended")


def drawn(client: TestClient, **body: Any) -> dict[str, Any]:
    return ended(client, asked(client, **body))


def stream(client: TestClient, run_id: str, after: int | None = None) -> list[tuple[str, str, str]]:
    """All server-sent events of a run, each (event, id, data), until the server ends them."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    answer = client.get(f"/runs/{run_id}/events", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            events.append((fields["event"], fields.get("id", ""), fields["data"]))
    return events


@contextmanager
def listening(folder: Path, limits: Limits, apps: list[FastAPI] | None = None) -> Iterator[str]:
    """The address of a server on a free port of loopback that works while the context lasts."""
    with own_folder(folder):
        app = application(Access("127.0.0.1"), limits, agent=Agent(phantom_collaborators()))
        if apps is not None:
            apps.append(app)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
            thread.start()
            try:
                until = time.monotonic() + PATIENCE
                while not server.started and time.monotonic() < until:
                    time.sleep(0.02)
                yield f"http://127.0.0.1:{taken.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join()

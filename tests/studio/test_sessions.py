"""Many people at once: everyone gets their own run, and memory does not grow with them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from gradio_client import Client
from phantom import phantom_collaborators
from studios import Place, free_port

import medgen
from medgen.access import Access
from medgen.graphs.agent import Agent
from medgen.studio.app import application
from medgen.studio.generate import AUTOMATIC

USERS = 10
MEBIBYTE = 2**20
PATIENCE = 300


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    """A studio in this process whose agent draws phantoms."""
    shared, port = Agent(phantom_collaborators()), free_port()
    config = uvicorn.Config(application(Access("127.0.0.1")), port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medgen, "Agent", lambda: shared, raising=False)
        thread.start()
        while not server.started:
            thread.join(0.05)
            assert thread.is_alive()
        yield f"http://127.0.0.1:{port}/"
    server.should_exit = server.force_exit = True
    thread.join(20)


def client_of(address: str) -> Client:
    """One person's session."""
    return Client(address, verbose=False, httpx_kwargs={"timeout": PATIENCE})


def resident() -> int:
    """This process's memory in bytes."""
    with open("/proc/self/statm") as stream:  # noqa: PTH123
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_users_with_queued_runs_are_not_mixed_up(address: str, place: Place) -> None:
    clients = [client_of(address) for _ in range(USERS)]

    def ask(user: int, turn: int) -> tuple[str, str, str]:
        prompt = f"cardiomegaly, chest X-ray, asked by user {user} in turn {turn}"
        given = (prompt, AUTOMATIC, 100 * turn + user, 1, 1, 2, 20, 1.6, "")
        return clients[user].predict(*given, api_name="/draw")

    def everyone(turn: int) -> None:
        with ThreadPoolExecutor(USERS) as pool:
            told = list(pool.map(ask, range(USERS), [turn] * USERS))
        runs = set()
        for user, (status, _, outcome) in enumerate(told):
            assert f"asked by user {user} in turn {turn}<" in outcome
            assert f"seed {100 * turn + user}." in outcome
            (run,) = re.findall(r"Done: run ([\w-]+)", status)
            assert f"<code>{run}</code>" in outcome
            runs.add(run)
        assert len(runs) == USERS

    everyone(0)
    before = resident()
    everyone(1)
    assert resident() - before < 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("place_of", "value", "says"),
    [(2, 2**40, "seed"), (3, 1000, "images"), (4, 10**6, "rounds"), (6, 10**9, "steps")],
)
def test_figures_over_the_limits_draw_nothing(
    address: str, place: Place, place_of: int, value: int, says: str
) -> None:
    given: list[object] = ["cardiomegaly, chest X-ray", AUTOMATIC, 1, 1, 1, 2, 20, 1.6, ""]
    given[place_of] = value
    before = len(list(place.runs.iterdir()))
    try:
        status, _, outcome = client_of(address).predict(*given, api_name="/draw")
    except Exception as refused:
        assert str(value) in str(refused) or says in str(refused).lower()
    else:
        assert 'role="alert"' in status and says in status.lower() and outcome == ""
    assert len(list(place.runs.iterdir())) == before


@pytest.mark.parametrize("name", ["evil.html", "evil.svg"])
def test_uploads_are_never_run_and_no_other_file_is_served(
    address: str, place: Place, name: str
) -> None:
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    sent = httpx.post(f"{address}gradio_api/upload", files={"files": (name, script)}, timeout=60)
    (path,) = sent.json()
    answer = httpx.get(f"{address}gradio_api/file={path}", timeout=60)
    assert answer.status_code != 200 or "attachment" in answer.headers["content-disposition"]
    refused = "is no PNG or JPEG"
    given = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": name}
    try:
        told = client_of(address).predict(given, "", AUTOMATIC, api_name="/check")
    except Exception as error:
        assert "file" in str(error).lower()
    else:
        assert refused in told
    for secret in (place.feedback, "/etc/passwd", "pyproject.toml"):
        assert httpx.get(f"{address}gradio_api/file={secret}", timeout=60).status_code in (403, 404)

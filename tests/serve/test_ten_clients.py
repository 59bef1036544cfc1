"""Ten clients at once on one server: each gets its own run and nothing of another's."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx2
from fastapi import FastAPI
from phantom_server import listening
from PIL import Image

from medgen.serve.limits import Limits

CLIENTS = 10
REQUESTS = (
    "cardiomegaly, chest X-ray",
    "no cardiomegaly, chest X-ray",
    "pneumothorax, chest X-ray",
)


def own_run(address: str, number: int) -> tuple[str, bytes]:
    """Ask for a run, follow it, and check that all that comes is its own."""
    prompt = REQUESTS[number % len(REQUESTS)]
    with httpx2.Client(base_url=address, timeout=120) as client:
        body = {"prompt": prompt, "seed": number, "rounds": 1}
        run_id = client.post("/runs", json=body).json()["run_id"]
        nodes, status = [], ""
        with client.stream("GET", f"/runs/{run_id}/events") as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    told = json.loads(line[6:])
                    nodes += [told["node"]] if "outputs" in told else []
                    status = told.get("status", status)
        view = client.get(f"/runs/{run_id}").json()
        trace = client.get(f"/runs/{run_id}/trace").json()
        image = client.get(view["images"][0]).content
    assert status == view["status"] == "finished"
    assert nodes == [event["node"] for event in trace["events"]]
    assert (view["prompt"], view["seed"]) == (prompt, number)
    assert trace["plan"]["prompt"] == prompt and trace["summary"]["run_id"] == run_id
    text = Image.open(BytesIO(image)).text  # type: ignore[attr-defined]
    assert (text["Prompt"], text["Run seed"]) == (prompt, str(number))
    return run_id, Image.open(BytesIO(image)).tobytes()


def test_ten_clients_get_their_own_and_nothing_is_kept(tmp_path: Path) -> None:
    apps: list[FastAPI] = []
    with listening(tmp_path, Limits(), apps=apps) as address:
        with ThreadPoolExecutor(CLIENTS) as people:
            runs = list(people.map(lambda number: own_run(address, number), range(CLIENTS)))
        state = apps[0].state
        assert (len(state.jobs.active), state.jobs.waiting, state.open_streams) == (0, 0, 0)
        listed = httpx2.get(f"{address}/runs").json()["runs"]
    assert {run_id for run_id, _ in runs} == {one["run_id"] for one in listed}
    assert len({run_id for run_id, _ in runs}) == CLIENTS
    assert len({pixels for _, pixels in runs}) == CLIENTS
    assert sorted(one["seed"] for one in listed) == list(range(CLIENTS))


def test_clients_that_leave_in_the_middle_leave_nothing_behind(tmp_path: Path) -> None:
    apps: list[FastAPI] = []
    with (
        listening(tmp_path, Limits(), apps=apps) as address,
        httpx2.Client(base_url=address) as one,
    ):
        run_id = one.post("/runs", json={"prompt": REQUESTS[0], "rounds": 1}).json()["run_id"]
        follow = f"{address}/runs/{run_id}/events"
        for _ in range(CLIENTS):
            with httpx2.stream("GET", follow, timeout=60) as events:
                next(events.iter_lines())
        with httpx2.stream("GET", follow, timeout=60) as events:
            assert '"finished"' in list(events.iter_lines())[-2]
        until = time.monotonic() + 10
        while apps[0].state.open_streams and time.monotonic() < until:
            time.sleep(0.05)
        assert apps[0].state.open_streams == 0

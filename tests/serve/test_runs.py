"""Runs over HTTP: asked for, followed, fetched, called off, and taken up after a restart."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from phantom import phantom_collaborators
from phantom_server import PROMPT, Gate, Serve, asked, drawn, ended, stream
from PIL import Image

from medgen.data.images import SYNTHETIC_NOTICE
from medgen.graphs.agent import Agent
from medgen.serve.jobs import LOCK, MARK
from medgen.serve.views import told_settings

NODES = [
    *("parse", "localize_anatomy", "assess_pathology", "retrieve", "map_features"),
    *("write_report", "compose", "generate", "verify", "select"),
]


def test_a_run_is_accepted_at_once_and_drawn_as_the_agent_draws_it(
    client: TestClient, finished: dict[str, Any], tmp_path: Path
) -> None:
    assert finished["status"] == "finished" and finished["accepted"] is True
    assert (finished["prompt"], finished["seed"]) == (PROMPT, 3)
    alone = Agent(phantom_collaborators()).run(PROMPT, seed=3, rounds=2, out=tmp_path / "alone")
    image = client.get(finished["images"][0])
    assert image.headers["content-type"] == "image/png"
    assert image.content == Path(alone.images[0]).read_bytes()
    result = finished["result"]
    assert result["findings"] == [one.model_dump(mode="json") for one in alone.findings]
    text = Image.open(BytesIO(image.content)).text  # type: ignore[attr-defined]
    assert text["Description"] == SYNTHETIC_NOTICE and text["Verdict"] == "accepted"


def test_every_address_in_an_answer_leads_somewhere_and_no_path_is_told(
    client: TestClient, finished: dict[str, Any]
) -> None:
    result = finished["result"]
    controls = [one["control"]["image"] for one in result["results"]]
    for address in [*finished["images"], *result["images"], *controls, result["trace"]]:
        assert client.get(address).status_code == 200, address
    trace = client.get(result["trace"])
    for candidate in trace.json()["candidates"]:
        assert client.get(candidate["image"]).status_code == 200
    runs = str(client.app.state.jobs.runs)  # type: ignore[attr-defined]
    page = client.get(result["trace"], params={"format": "html"})
    live = str(stream(client, finished["run_id"]))
    for text in (json.dumps(finished), trace.text, page.text, live):
        assert runs not in text


def test_folders_of_weights_are_told_by_their_last_names() -> None:
    settings = {"weights": "/home/ann/models/mine", "backend": "diffusers:/data/sd", "steps": 20}
    assert told_settings(settings) == {"weights": "mine", "backend": "diffusers:sd", "steps": 20}


def test_a_run_whose_folder_cannot_be_written_fails_and_the_next_is_drawn(serve: Serve) -> None:
    gate = Gate()
    with serve(generator=gate) as client:
        gate.open.clear()
        first, second, third = (asked(client, seed=seed) for seed in (1, 2, 3))
        assert gate.reached.wait(60)
        runs = client.app.state.jobs.runs
        shutil.move(runs / second, runs / "away")
        (runs / second).write_text("a file where the folder was")
        gate.open.set()
        assert ended(client, third)["status"] == "finished"
        assert second not in client.app.state.jobs.active
        assert ended(client, first)["status"] == "finished"


def test_the_trace_is_there_as_data_and_as_a_page_that_can_do_nothing(
    client: TestClient, finished: dict[str, Any]
) -> None:
    trace = client.get(f"/runs/{finished['run_id']}/trace").json()
    assert trace["request"]["prompt"] == trace["plan"]["prompt"] == PROMPT
    assert len(trace["candidates"]) == finished["candidates"]
    page = client.get(f"/runs/{finished['run_id']}/trace?format=html")
    assert page.headers["content-type"].startswith("text/html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert PROMPT in page.text


def test_events_are_replayed_from_the_start_or_from_where_a_client_was(
    client: TestClient, finished: dict[str, Any]
) -> None:
    events = stream(client, finished["run_id"])
    steps = [(id, json.loads(data)["node"]) for event, id, data in events if event == "step"]
    second = ["refine", "generate", "verify", "select"]
    assert [node for _, node in steps] == [*NODES, *second, "record"]
    assert [id for id, _ in steps] == [str(number) for number in range(1, len(steps) + 1)]
    assert events[-1][0] == "status" and json.loads(events[-1][2])["status"] == "finished"
    later = stream(client, finished["run_id"], after=12)
    assert later[0][1] == "13" and later == events[12:]


def test_events_of_a_run_that_is_drawn_arrive_live_and_miss_nothing(serve: Serve) -> None:
    gate = Gate()
    with serve(generator=gate) as client:
        run_id = asked(client)
        live = stream(client, run_id)
        assert json.loads(live[-1][2])["status"] == "finished"
        nodes = [json.loads(data)["node"] for event, _, data in live if event == "step"]
        assert nodes == [*NODES, "record"]
        told = [json.loads(data) for event, _, data in live if event == "status"]
        assert [one["status"] for one in told][-2:] == ["running", "finished"]
        replayed = [one for one in stream(client, run_id) if one[0] == "step"]
        assert [one for one in live if one[0] == "step"] == replayed


def test_runs_wait_in_order_and_are_called_off(serve: Serve) -> None:
    gate = Gate()
    with serve(generator=gate) as client:
        gate.open.clear()
        first, second, third = (asked(client, seed=seed) for seed in (1, 2, 3))
        assert gate.reached.wait(60)
        views = {one["run_id"]: one for one in client.get("/runs").json()["runs"]}
        assert [views[one]["ahead"] for one in (first, second, third)] == [None, 1, 2]
        assert (views[first]["status"], views[first]["node"]) == ("running", "generate")
        assert client.delete(f"/runs/{second}").json()["status"] == "cancelled"
        assert client.delete(f"/runs/{first}").status_code == 202
        gate.open.set()
        assert ended(client, first)["status"] == "cancelled"
        assert ended(client, third)["status"] == "finished"
        assert client.delete(f"/runs/{third}").status_code == 409
        assert client.get(f"/runs/{second}/events").text.count("event: status") == 1
        assert client.get(f"/runs/{first}/trace?format=html").status_code == 404


def test_runs_are_listed_newest_first_in_pages_with_those_of_the_command_line(
    serve: Serve, tmp_path: Path
) -> None:
    with serve() as client:
        own = [drawn(client, seed=seed)["run_id"] for seed in (1, 2)]
        foreign = Agent(phantom_collaborators()).run(PROMPT, rounds=1).run_id
        cut_off = tmp_path / "runs" / "20200101-000000-000000-00000000"
        cut_off.mkdir()
        text = (tmp_path / "runs" / own[0] / "request.json").read_text()
        (cut_off / "request.json").write_text(text.replace(own[0], cut_off.name))
        page = client.get("/runs?limit=3").json()
        assert [one["run_id"] for one in page["runs"]] == [foreign, own[1], own[0]]
        rest = client.get(f"/runs?limit=3&before={page['before']}").json()
        assert [(one["run_id"], one["status"]) for one in rest["runs"]] == [
            (cut_off.name, "unfinished")
        ]
        assert rest["before"] is None
        assert client.get(f"/runs/{foreign}").json()["result"]["run_id"] == foreign


def test_a_server_that_was_killed_goes_on_where_it_was(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    killed = tmp_path / "as it was"
    with serve(generator=gate) as client:
        gate.open.clear()
        first, second, unwanted = (asked(client, seed=seed) for seed in (1, 2, 3))
        client.delete(f"/runs/{unwanted}")
        assert gate.reached.wait(60)
        shutil.copytree(tmp_path / "runs", killed)  # the disk at the moment of a power cut
        gate.open.set()
        whole = [client.get(ended(client, one)["images"][0]).content for one in (first, second)]
    shutil.rmtree(tmp_path / "runs")
    killed.rename(tmp_path / "runs")
    (tmp_path / "runs" / LOCK).unlink()
    with serve() as client:
        seen = [ended(client, one) for one in (first, second)]
        assert [one["status"] for one in seen] == ["finished", "finished"]
        assert [client.get(one["images"][0]).content for one in seen] == whole
        assert client.get(f"/runs/{unwanted}").json()["status"] == "cancelled"
        events = client.get(f"/runs/{first}/trace").json()["events"]
        assert [event["node"] for event in events].count("parse") == 1
    assert not list((tmp_path / "runs").glob(f"{first}/{MARK}"))


def test_a_server_that_is_stopped_ends_its_step_and_goes_on_later(serve: Serve) -> None:
    with serve(generator=Gate()) as client:
        runs = [asked(client, seed=seed) for seed in range(3)]
    with serve() as client:
        assert [ended(client, one)["status"] for one in runs] == ["finished"] * 3


def test_what_fails_says_why_and_the_next_run_is_drawn(serve: Serve) -> None:
    class Fails(Gate):
        def sample(self, conditionings: Any) -> Any:
            if conditionings[0].structured.get("view") or len(self.batches) == 0:
                self.batches.append([])
                raise RuntimeError("out of memory")
            return super().sample(conditionings)

    with serve(generator=Fails()) as client:
        first = drawn(client, seed=1)
        assert first["status"] == "failed"
        assert "out of memory" in first["error"] and "\n" not in first["error"]
        assert drawn(client, seed=2)["status"] == "finished"


def test_a_fault_of_ours_fails_the_run_and_not_the_server(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Agent.run

    def broken(self: Agent, *arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(Agent, "run", whole)
        raise KeyError("no such thing")

    monkeypatch.setattr(Agent, "run", broken)
    with serve() as client:
        first = drawn(client, seed=1)
        assert first["status"] == "failed" and "no such thing" in first["error"]
        assert drawn(client, seed=2)["status"] == "finished"


def test_health_and_figures(client: TestClient, finished: dict[str, Any]) -> None:
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}
    text = client.get("/metrics").text
    figures = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if not line.startswith("#")
    }
    assert figures['medgen_runs_total{outcome="accepted"}'] == 1
    assert figures["medgen_candidates_total"] == finished["candidates"]
    assert figures["medgen_queue_length"] == 0
    asked_for = 'medgen_http_requests_total{method="POST",route="/runs",status="202"}'
    assert figures[asked_for] == 1


@pytest.mark.parametrize("page", ["/docs", "/openapi.json", "/docs-files/swagger-ui-bundle.js"])
def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200
    if page == "/docs":
        assert "https://" not in answer.text.replace("https://fastapi.tiangolo.com", "")

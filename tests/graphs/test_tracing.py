"""Runs listed, read, compared, replayed and exported: to a collector that listens on loopback."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from phantom import PhantomGenerator, PhantomPanel, phantom_collaborators
from typer.testing import CliRunner, Result

from medgen import cli
from medgen.errors import BadInput, MedgenError
from medgen.graphs.agent import Agent
from medgen.graphs.forking import fork
from medgen.graphs.replaying import replay
from medgen.graphs.run_folder import RunFolder
from medgen.graphs.runs import find_run, list_runs, load_run
from medgen.graphs.trace_diff import diff
from medgen.graphs.trace_export import send_otlp, span_lines
from medgen.settings import settings

PROMPT = "cardiomegaly, chest X-ray"
NODES = ["parse", "localize_anatomy", "assess_pathology", "retrieve", "map_features"]


class Collector(ThreadingHTTPServer):
    """Keeps what is posted to it: path, headers and body."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), Keeper)
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[object]:
        found = []
        for path, headers, body in self.received:
            assert path == "/v1/traces" and headers["content-type"] == "application/x-protobuf"
            encoding = headers.get("content-encoding")
            if encoding:
                body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
            sent = ExportTraceServiceRequest.FromString(body)
            found += [
                span
                for resource in sent.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return found


class Keeper(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append((self.path, headers, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_PATCH = do_POST

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for runs, for all tests of this module."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_RUNS", str(place))
        patch.setenv("MEDGEN_FEEDBACK", "off")
        settings.cache_clear()
        yield place
    settings.cache_clear()


@pytest.fixture(scope="module")
def agent(folder: Path) -> Agent:
    return Agent(phantom_collaborators())


@pytest.fixture(scope="module")
def run(agent: Agent) -> RunFolder:
    return RunFolder.open(agent.run(PROMPT, seed=3, rounds=4).folder)


@pytest.fixture(scope="module")
def child(agent: Agent, run: RunFolder) -> RunFolder:
    return RunFolder.open(fork(run, "refine", {"seed": 5}, agent=agent).folder)


def medgen(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["trace", *arguments])


def test_runs_are_listed_newest_first_and_found(run: RunFolder, child: RunFolder) -> None:
    runs = list_runs()
    assert [one.run_id for one in runs] == [child.run_id, run.run_id]
    first = runs[-1]
    assert (first.prompt, first.modality, first.status) == (PROMPT, "Chest X-ray", "finished")
    assert (
        first.accepted is True and first.seed == 3 and first.images == [str(run.path / "image.png")]
    )
    assert runs[0].lineage is not None and runs[0].lineage.changes == {"request.seed": 5}
    assert list_runs(search="CARDIO chest") == runs and list_runs(search="glioma") == []
    assert list_runs(modality="chest x-ray") == runs and list_runs(modality="Fundus") == []
    assert run.run_id in {one.run_id for one in list_runs(accepted=True)}
    assert run.run_id not in {one.run_id for one in list_runs(accepted=False)}
    assert find_run(run.run_id[:-1]).path == run.path
    assert list_runs(run.path / "nowhere") == []


@pytest.mark.parametrize("name", ["", "2", "nobody", "../runs", "..", ".", "/etc"])
def test_names_of_no_or_several_runs_are_one_line(
    run: RunFolder, child: RunFolder, name: str
) -> None:
    with pytest.raises(BadInput) as raised:
        find_run(name)
    assert "\n" not in str(raised.value)


def test_unfinished_and_damaged_runs_are_listed_as_such(run: RunFolder, tmp_path: Path) -> None:
    for name in ("open", "broken", "bare"):
        shutil.copytree(run.path, tmp_path / name)
    (tmp_path / "open" / "run.json").unlink()
    (tmp_path / "broken" / "request.json").write_text("[]")
    (tmp_path / "bare" / "checkpoints.sqlite").write_bytes(b"no database")
    states = {Path(one.folder).name: one.status for one in list_runs(tmp_path)}
    assert states == {"open": "unfinished", "broken": "damaged", "bare": "finished"}
    with pytest.raises(BadInput, match="cannot be read"):
        load_run(tmp_path / "bare")
    with pytest.raises(BadInput, match="not finished"):
        replay(RunFolder.open(tmp_path / "open"))


def test_show_tells_the_run(run: RunFolder) -> None:
    shown = medgen("show", str(run.path)).stdout
    trace = load_run(run)
    for fact in trace.facts:
        assert fact.id in shown.replace("\n", "").replace(" ", "").replace("│", "")
    for words in ("round 1", "round 2", "cardiothoracic_ratio", "contradicted", "accept ", "steps"):
        assert words in shown
    as_json = json.loads(medgen("show", run.run_id, "--json").stdout)
    assert as_json["setup"]["generator"] == PhantomGenerator.fingerprint
    assert as_json["setup"]["panel"] == PhantomPanel.fingerprint and as_json["setup"]["knowledge"]
    assert as_json["setup"]["settings"]["steps"] == settings().steps
    page = run.path / "trace.html"
    page.unlink()
    assert medgen("show", run.run_id, "--html").stdout.strip() == str(page)
    assert run.run_id in page.read_text(encoding="utf-8")


def test_diff_tells_what_differs(run: RunFolder, child: RunFolder) -> None:
    a, b = load_run(run), load_run(child)
    assert diff(a, a).same
    found = diff(a, b)
    told = {(one.part, one.name): (one.a, one.b) for one in found.differences}
    assert told["request", "seed"] == (3, 5)
    assert ("prompts", "image0-round2-2.seed") in told
    assert not {part for part, _ in told} & {"plan", "facts", "settings"}
    assert all("round1" not in name for part, name in told if part in ("prompts", "measurements"))
    assert {row.node for row in found.seconds} >= set(NODES)
    assert "request" in medgen("diff", run.run_id, child.run_id).stdout
    assert json.loads(medgen("diff", run.run_id, run.run_id, "--json").stdout)["same"] is True


@pytest.mark.parametrize("which", ["run", "child"])
def test_a_replay_draws_the_same_bytes(
    request: pytest.FixtureRequest, agent: Agent, folder: Path, which: str
) -> None:
    earlier: RunFolder = request.getfixturevalue(which)
    before = {path.name for path in folder.iterdir()}
    found = replay(earlier, agent=agent)
    assert found.identical and found.first_difference is None and found.notes == []
    assert len(found.images) == len(load_run(earlier).candidates) + 1
    assert {path.name for path in folder.iterdir()} == before


def test_a_replay_says_where_it_differs(run: RunFolder, tmp_path: Path) -> None:
    class Drifts(PhantomGenerator):
        def __init__(self) -> None:
            super().__init__(noise=0.02)

    found = replay(run, agent=Agent(phantom_collaborators(Drifts())), out=tmp_path / "again")
    assert not found.identical and found.folder == str(tmp_path / "again")
    differing = [image for image in found.images if not image.identical]
    assert any(0 < (image.differing_pixels or 0) <= 1 for image in differing)
    assert found.first_difference == "generate (round 1)"
    assert (tmp_path / "again" / "trace.html").is_file()


@pytest.mark.parametrize("part", ["generator", "panel"])
def test_a_replay_refuses_other_parts(run: RunFolder, folder: Path, part: str) -> None:
    generator, panel = PhantomGenerator(), PhantomPanel()
    {"generator": generator, "panel": panel}[part].fingerprint = "0" * 16
    before = set(folder.iterdir())
    with pytest.raises(BadInput, match=f"other .*{part}"):
        replay(run, agent=Agent(phantom_collaborators(generator, panel)))
    assert set(folder.iterdir()) == before and generator.batches == []


def test_spans_reach_a_collector_with_their_times(run: RunFolder, collector: Collector) -> None:
    trace = load_run(run)
    assert send_otlp(trace, f"{collector.url}/v1/traces") == len(trace.events) + 1
    root, *steps = sorted(collector.spans(), key=lambda span: bool(span.parent_span_id))  # type: ignore[attr-defined]
    assert [span.name for span in steps] == [event.node for event in trace.events]
    assert {span.parent_span_id for span in steps} == {root.span_id}
    assert len({span.trace_id for span in (root, *steps)}) == 1
    told = {pair.key: pair.value for pair in root.attributes}
    assert told["medgen.run"].string_value == run.run_id
    assert told["medgen.prompt"].string_value == PROMPT
    assert told["medgen.accepted"].bool_value is True
    for span, event in zip(steps, trace.events, strict=True):
        seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert seconds == pytest.approx(event.seconds, abs=1e-6)
    lines = [json.loads(line) for line in span_lines(trace)]
    assert [line["name"] for line in lines] == ["medgen run", *(span.name for span in steps)]


def test_a_collector_that_is_not_there_is_one_line(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")
    with pytest.raises(MedgenError, match="did not take the spans"):
        send_otlp(load_run(run), "http://127.0.0.1:9/v1/traces")
    with pytest.raises(BadInput, match="no web address"):
        send_otlp(load_run(run), "localhost:4318")


LIVE = """
import sys
sys.path.insert(0, sys.argv[1])
from phantom import phantom_collaborators
from medgen.graphs.agent import Agent
Agent(phantom_collaborators()).run("cardiomegaly, chest X-ray", rounds=1)
"""


def live(tmp_path: Path, **variables: str) -> None:
    subprocess.run(
        [sys.executable, "-c", LIVE, str(Path(__file__).parent)],
        check=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "MEDGEN_RUNS": str(tmp_path), "MEDGEN_FEEDBACK": "off", **variables},
    )


def test_a_run_is_traced_over_otlp_while_it_runs(tmp_path: Path, collector: Collector) -> None:
    live(tmp_path, MEDGEN_TRACING="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    names = [span.name for span in collector.spans()]  # type: ignore[attr-defined]
    assert {*NODES, "generate", "verify", "record", "medgen run"} <= set(names)

"""The MCP server by the package's own client: over stdio as a program starts it, and over HTTP."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from phantom import phantom_collaborators
from PIL import Image
from starlette.testclient import TestClient

from medgen.access import Access
from medgen.data.images import SYNTHETIC_NOTICE
from medgen.graphs.agent import Agent
from medgen.records import Plan, Run, Verification
from medgen.serve.mcp_http import http_application
from medgen.serve.mcp_tools import tool_server
from medgen.settings import settings

PROMPT = "cardiomegaly, chest X-ray"
TOOLS = {"generate_verified_image", "plan", "verify_image", "list_runs", "get_run"}
DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from phantom import PhantomGenerator, phantom_collaborators
from medgen.graphs.agent import Agent
from medgen.serve.mcp_tools import tool_server

class Talks(PhantomGenerator):
    def sample(self, conditionings):
        print("what a library prints must not reach the client", flush=True)
        return super().sample(conditionings)

tool_server(Agent(phantom_collaborators(Talks()))).run("stdio")
"""


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDGEN_RUNS", str(tmp_path / "runs"))
    settings.cache_clear()
    return tmp_path / "runs"


@asynccontextmanager
async def over_stdio(runs: Path) -> AsyncIterator[Client]:
    """A client of a server in a process of its own, with the phantom generator and panel."""
    variables = {"MEDGEN_RUNS": str(runs), "MEDGEN_FEEDBACK": "off", "OMP_NUM_THREADS": "1"}
    variables["MEDGEN_KNOWLEDGE"] = str(settings().knowledge)
    graphs = str(Path(__file__).parents[1] / "graphs")
    command = StdioServerParameters(
        command=sys.executable, args=["-c", DRIVER, graphs], env=variables
    )
    async with Client(command, read_timeout_seconds=240) as client:
        yield client


def in_process() -> Client:
    return Client(tool_server(Agent(phantom_collaborators())))


def test_an_agent_asks_for_a_verified_image_over_stdio(runs: Path) -> None:
    progress: list[str | None] = []

    async def told(done: float, total: float | None, message: str | None) -> None:
        progress.append(message)

    async def work() -> None:
        async with over_stdio(runs) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == TOOLS
            assert all(tool.description for tool in tools.values())
            arguments = {"prompt": PROMPT, "seed": 3, "rounds": 2, "candidates": 2}
            answer = await client.call_tool(
                "generate_verified_image", arguments, progress_callback=told
            )
            assert not answer.is_error
            text, picture = answer.content
            for words in ("accepted", "confirmed", "cardiothoracic ratio", SYNTHETIC_NOTICE):
                assert words in text.text
            record = Run.model_validate(answer.structured_content)
            pixels = base64.b64decode(picture.data)
            assert picture.mime_type == "image/png"
            assert pixels == Path(record.images[0]).read_bytes()
            found = await client.call_tool("list_runs", {"search": "cardiomegaly"})
            assert [one["run_id"] for one in found.structured_content["runs"]] == [record.run_id]
            again = await client.call_tool("get_run", {"run_id": record.run_id[:20]})
            assert again.content == answer.content

    run(work)
    assert "generate" in progress and progress[0] == "parse"


def test_plans_and_measurements_come_as_records(runs: Path, tmp_path: Path) -> None:
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    (tmp_path / "film.png").write_bytes(buffer.getvalue())

    async def work() -> None:
        async with in_process() as client:
            plan = Plan.model_validate(
                (await client.call_tool("plan", {"prompt": PROMPT})).structured_content
            )
            assert [one.finding for one in plan.findings] == ["cardiomegaly"]
            for given in ({"image_base64": encoded}, {"path": str(tmp_path / "film.png")}):
                answer = await client.call_tool("verify_image", {"prompt": PROMPT, **given})
                found = Verification.model_validate(answer.structured_content)
                assert found.findings[0].verdict is not None

    run(work)
    assert not runs.exists()


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("generate_verified_image", {"prompt": "asdf qwer zxcv"}, "nothing understood"),
        ("generate_verified_image", {"prompt": PROMPT, "images": 5}, "images"),
        ("generate_verified_image", {"prompt": PROMPT, "seed": -1}, "seed"),
        ("generate_verified_image", {"prompt": "heart " * 9000}, "prompt"),
        ("generate_verified_image", {}, "prompt"),
        ("plan", {"prompt": "cardiomegaly \ud800"}, ""),
        ("verify_image", {}, "either image_base64 or path"),
        ("verify_image", {"image_base64": "not base64!"}, "not base64"),
        ("verify_image", {"image_base64": "aGVsbG8="}, "cannot read the image"),
        ("verify_image", {"path": "/nowhere.png"}, "no image"),
        ("get_run", {"run_id": "../../etc/passwd"}, "no run"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_a_model_can_read(
    runs: Path, tool: str, arguments: dict[str, Any], says: str
) -> None:
    async def work() -> None:
        async with in_process() as client:
            answer = await client.call_tool(tool, arguments)
            assert answer.is_error and says in answer.content[0].text

    run(work)
    assert not runs.exists()


def test_a_server_for_others_reads_no_files_of_its_own(runs: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with Client(tool_server(Agent(phantom_collaborators()), local=False)) as client:
            answer = await client.call_tool("verify_image", {"path": "/etc/passwd"})
            assert answer.is_error and "reads no files" in answer.content[0].text

    run(work)


def test_a_server_for_others_tells_no_path_of_its_machine(runs: Path) -> None:
    async def work() -> None:
        async with Client(tool_server(Agent(phantom_collaborators()), local=False)) as client:
            arguments = {"prompt": PROMPT, "rounds": 1, "candidates": 1}
            drawn = await client.call_tool("generate_verified_image", arguments)
            listed = await client.call_tool("list_runs", {})
            record = Run.model_validate(drawn.structured_content)
            assert record.images == [f"/runs/{record.run_id}/images/image.png"]
            assert [one["folder"] for one in listed.structured_content["runs"]] == [record.run_id]
            for answer in (drawn, listed):
                assert str(runs) not in answer.model_dump_json()

    run(work)


def test_over_http_the_token_comes_first() -> None:
    token = "correct-horse-battery"
    server = tool_server(Agent(phantom_collaborators()), local=False)
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    headers = {"Accept": "application/json, text/event-stream"}
    with TestClient(http_application(server, Access("0.0.0.0", token))) as client:
        assert client.post("/mcp", json=hello, headers=headers).status_code == 401
        wrong = {**headers, "Authorization": "Bearer wrong"}
        assert client.post("/mcp", json=hello, headers=wrong).status_code == 401
        right = {**headers, "Authorization": f"Bearer {token}"}
        answer = client.post("/mcp", json=hello, headers=right)
        assert answer.status_code == 200 and "medgen" in answer.text


def test_over_http_a_local_server_answers_to_its_own_names() -> None:
    app = http_application(tool_server(Agent(phantom_collaborators())), Access("127.0.0.1"))
    with TestClient(app) as client:
        foreign = client.post("/mcp", json={}, headers={"Host": "evil.example"})
        assert foreign.status_code == 421

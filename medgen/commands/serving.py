"""Commands that answer other programs: the HTTP API and the MCP server."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from medgen.access import TOKEN_VARIABLE
from medgen.commands.shared import examples, use_runs, working
from medgen.errors import BadInput

commands = typer.Typer()

Host = Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar=TOKEN_VARIABLE,
        show_envvar=True,
        show_default=False,
        help="Token that clients must send as 'Authorization: Bearer TOKEN'; needed with any "
        "--host but this machine. The variable keeps it out of the list of processes.",
    ),
]
RunsFolder = Annotated[
    Path | None, typer.Option(help="Folder that receives one folder a run; MEDGEN_RUNS if not set.")
]


@commands.command(
    epilog=examples(
        "medgen serve",
        'curl -d \'{"prompt": "cardiomegaly, chest X-ray"}\' -H "Content-Type: application/json" '
        "http://127.0.0.1:8000/runs",
        f"{TOKEN_VARIABLE}=$(openssl rand -hex 24) medgen serve --host 0.0.0.0 --port 8080",
    )
)
def serve(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token: Token = None,
    runs: RunsFolder = None,
    max_queue: Annotated[int, typer.Option(min=1, max=10_000, help="Runs that may wait.")] = 32,
    max_rate: Annotated[
        int, typer.Option(min=1, help="Requests a minute of one client, at most.")
    ] = 600,
    max_images: Annotated[int, typer.Option(min=1, max=64, help="Images a run, at most.")] = 8,
    max_rounds: Annotated[int, typer.Option(min=1, max=20, help="Rounds a run, at most.")] = 8,
    max_candidates: Annotated[
        int, typer.Option(min=1, max=64, help="Candidates a round, at most.")
    ] = 8,
    max_steps: Annotated[int, typer.Option(min=2, max=1000, help="Sampling steps, at most.")] = 100,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Web origin whose pages may call the API, repeatable; none if not set.",
        ),
    ] = None,
) -> None:
    """Serve runs over HTTP: ask, follow, fetch and rate; documented at /docs.

    One run is drawn at a time, the others wait in order. A server started again goes on with what
    it had accepted.
    """
    _require("fastapi", "serve")
    with working(as_json=False):
        from medgen.access import Access
        from medgen.serve.app import application
        from medgen.serve.limits import Limits
        from medgen.serve.server import answer

        access = Access(host, token)
        use_runs(runs)
        limits = Limits(
            queue=max_queue,
            rate=max_rate,
            images=max_images,
            rounds=max_rounds,
            candidates=max_candidates,
            steps=max_steps,
        )
        answer(application(access, limits, origins=allow_origin), access, port)


@commands.command(
    epilog=examples(
        "medgen mcp",
        "medgen mcp --runs medgen-runs",
        "medgen mcp --http --port 8001",
    )
)
def mcp(
    http: Annotated[
        bool, typer.Option("--http", help="Listen on a port instead of stdin and stdout.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port, with --http.")] = 8001,
    token: Token = None,
    runs: RunsFolder = None,
) -> None:
    """Let other agents ask for verified images, by the Model Context Protocol.

    Tools: generate_verified_image, plan, verify_image, list_runs, get_run.
    """
    _require("mcp", "mcp")
    with working(as_json=True):  # what libraries print while loading is no message of the protocol
        from medgen.access import Access
        from medgen.serve.mcp_http import http_application
        from medgen.serve.mcp_tools import tool_server
        from medgen.serve.server import answer

        access = Access(host, token)
        use_runs(runs)
        server = tool_server(local=not http)
    if http:
        answer(http_application(server, access), access, port)
    else:
        server.run("stdio")


def _require(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise BadInput(f'{package} is not installed: pip install "medgen[{extra}]"')

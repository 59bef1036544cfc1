"""The command that serves the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.access import TOKEN_VARIABLE, Access
from medgen.commands.shared import examples, use_runs, working
from medgen.errors import BadInput

commands = typer.Typer()
PORT = 7860


@commands.command(
    epilog=examples(
        "medgen studio",
        "medgen studio --runs runs --real films --port 8000",
        f"{TOKEN_VARIABLE}=a-long-secret-token medgen studio --host 0.0.0.0",
    )
)
def studio(
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = PORT,
    token: Annotated[
        str | None,
        typer.Option(envvar=TOKEN_VARIABLE, help="Token that the page asks for."),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of runs; MEDGEN_RUNS when not given.")
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(help="Folder of your own real images, for telling real from synthetic."),
    ] = None,
) -> None:
    """Serve the studio: draw, look at runs, rate images by keyboard, watch datasets grow."""
    access = Access(host, token)
    use_runs(runs)
    if real is not None and not real.is_dir():
        raise BadInput(f"--real {real} is no folder: give one with PNG or JPEG images")
    with working(as_json=False):
        try:
            from medgen.studio.app import serve
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise BadInput('the studio needs gradio: pip install "medgen[studio]"') from error
        at = f"[{host}]" if ":" in host else host
        typer.echo(f"medgen studio at http://{at}:{port}/ (Ctrl+C stops it)", err=True)
        serve(access, port, real)

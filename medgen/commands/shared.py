"""What commands have in common: options, exit codes, examples, and where answers go.

`--json` goes to stdout alone, everything else is for eyes.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medgen.records import Record

MAX_IMAGES = 64
MAX_SEED = 2**32 - 1
FEWER_ACCEPTED = 3
UNACCEPTABLE_ARGUMENTS = 2
FAILED = 1
DEBUG = "MEDGEN_DEBUG"
PROMPT_HELP = 'What to draw, such as "cardiomegaly, chest X-ray".'

Prompt = Annotated[str, typer.Argument(help=PROMPT_HELP, show_default=False)]
Modality = Annotated[
    str | None,
    typer.Option("--modality", "-m", help="Modality, over the one named in the prompt."),
]
Images = Annotated[
    int, typer.Option("--images", "-n", min=1, max=MAX_IMAGES, help="How many images.")
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same images.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder to write to; a new one under runs/ when not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def examples(*lines: str) -> str:
    """The end of a help page: example command lines."""
    return "Examples:\n\n" + "\n\n".join(lines)


def use_runs(runs: Path | None) -> None:
    """Make a folder that of this process's runs, whatever reads the settings."""
    if runs is not None:
        from medgen.settings import settings

        os.environ["MEDGEN_RUNS"] = str(runs.expanduser().resolve())
        settings.cache_clear()


@contextmanager
def working(as_json: bool) -> Iterator[None]:
    """Keep what libraries print away from stdout (for --json) and their warnings from the eye."""
    if not os.environ.get(DEBUG):
        warnings.simplefilter("ignore")
        for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(record: Record) -> None:
    """Print a record as one line of JSON."""
    typer.echo(json.dumps(record.model_dump(mode="json"), ensure_ascii=False))

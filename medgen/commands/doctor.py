"""The command that says what is installed and what is missing."""

from __future__ import annotations

import typer

from medgen.commands.shared import FAILED, Json, examples, print_json, working
from medgen.console.diagnoses import show_diagnosis
from medgen.console.progress import spinner

commands = typer.Typer()


@commands.command(epilog=examples("medgen doctor", "medgen doctor --json"))
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which weights load, what is missing, and what to do about it."""
    with working(as_json), spinner("looking", visible=not as_json):
        from medgen.doctor import diagnose

        diagnosis = diagnose()
    if as_json:
        print_json(diagnosis)
    else:
        show_diagnosis(diagnosis)
    raise typer.Exit(0 if diagnosis.ok else FAILED)

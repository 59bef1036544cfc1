"""Commands on tables of images: check and convert."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import FAILED, Json, examples, print_json, working
from medgen.console.progress import RowCounter
from medgen.console.tables import show_table_report
from medgen.errors import BadInput

commands = typer.Typer(help="Tables of images.", no_args_is_help=True)


@commands.command(
    "check",
    epilog=examples("medgen data check table.csv", "medgen data check table.csv --json"),
)
def check(
    table: Annotated[Path, typer.Argument(help="A table in any of the known forms.")],
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode.")] = 2,
    as_json: Json = False,
) -> None:
    """Look for broken images, duplicates, leakage between splits; count labels.

    Exits 1 when a problem was found.
    """
    with working(as_json), RowCounter("looked at") as counter:
        from medgen.data.check import check_table

        report = check_table(table, workers, progress=counter.count_to)
    if as_json:
        print_json(report)
    else:
        show_table_report(report)
    raise typer.Exit(FAILED if report.problems else 0)


@commands.command(
    "convert",
    epilog=examples(
        "medgen data convert drawn.csv prompt_INFO.csv --to chexgenbench",
        "medgen data convert minim.csv table.csv",
    ),
)
def convert(
    table: Annotated[Path, typer.Argument(help="A table in any of the known forms.")],
    target: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    to: Annotated[str, typer.Option(help="medgen, minim or chexgenbench.")] = "medgen",
) -> None:
    """Rewrite a table of images in another form of the field."""
    from medgen.data.formats import FORMS, Reading, read_rows, write_rows

    if to not in FORMS:
        raise BadInput(f"--to {to} is no form: use {', '.join(FORMS)}")
    if target.exists():
        raise BadInput(f"{target} is there already: choose another name")
    reading = Reading()
    write_rows(read_rows(table, reading), target, to)
    for note in reading.notes:
        sys.stderr.write(f"{note}\n")
    typer.echo(str(target.resolve()))

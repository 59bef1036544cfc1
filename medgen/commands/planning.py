"""The command that says what would be drawn, for one prompt or a table of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen.commands.shared import PROMPT_HELP, Json, Modality, examples, print_json, working
from medgen.console.plans import show_plan
from medgen.console.progress import RowCounter, spinner
from medgen.errors import BadInput

if TYPE_CHECKING:
    from medgen.records import Reading

commands = typer.Typer()


@commands.command(
    epilog=examples(
        'medgen plan "chest X-ray: cardiomegaly with right pleural effusion"',
        'medgen plan "breast with tumor, MRI" --json',
        'medgen plan --table reports.csv --column findings --column impression -m "chest X-ray"',
    )
)
def plan(
    prompt: Annotated[str | None, typer.Argument(help=PROMPT_HELP, show_default=False)] = None,
    modality: Modality = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Plan every row of a .csv, .tsv or .jsonl: one JSON line a row."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The table's column of text; several are joined."),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="The column that names a row; else its number."),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--request",
            help="Read whole reports, where contradictions are warnings, or requests, where they "
            "are errors; by the look of each text when not given.",
        ),
    ] = None,
    retrieve: Annotated[
        bool | None,
        typer.Option(
            "--retrieve/--no-retrieve",
            help="Look facts up and cite them; by default for a prompt, not for a table.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what would be drawn and measured, and from which facts; draws nothing.

    A table gives one JSON line a row, in order; a row that cannot be planned is a line with an
    `error`. Exits 2 when the table cannot be read or no row of it can be planned.
    """
    if (prompt is None) == (table is None):
        raise BadInput("give a prompt, or --table FILE with --column NAME: one of the two")
    reading: Reading | None = None if report is None else "report" if report else "request"
    if table is not None:
        _plan_table(table, tuple(column or ()), id_column, modality, reading, bool(retrieve))
        return
    if column or id_column:
        raise BadInput("--column and --id are for a table: give --table FILE")
    with working(as_json), spinner("planning", visible=not as_json):
        from medgen.graphs.plan import plan_line

        line = plan_line(prompt or "", modality, reading=reading, retrieve=retrieve is not False)
    if as_json:
        print_json(line)
    else:
        show_plan(line)


def _plan_table(
    path: Path,
    columns: tuple[str, ...],
    id_column: str | None,
    modality: str | None,
    reading: Reading | None,
    retrieve: bool,
) -> None:
    if not columns:
        raise BadInput("--table needs --column NAME: say which column holds the text")
    with working(as_json=True):
        from medgen.graphs.plan import Table, plan_table

        table = Table(path, columns, id_column)
        lines = plan_table(table, modality, reading=reading, retrieve=retrieve)
    with RowCounter("planned") as counter:
        while True:
            with working(as_json=True):
                line = next(lines, None)
            if line is None:
                break
            print_json(line)
            counter.count(failed=line.error is not None)
    if counter.rows == counter.failed:
        raise BadInput(f"no row of {path} can be planned: see the error of each line")

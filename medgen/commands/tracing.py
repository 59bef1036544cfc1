"""Commands that look into runs, compare and repeat them, and go on from the middle of one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import (
    FAILED,
    FEWER_ACCEPTED,
    Json,
    Modality,
    Out,
    examples,
    print_json,
    working,
)
from medgen.console.images import show_run
from medgen.console.progress import LiveSteps
from medgen.console.text import one_line
from medgen.console.traces import show_diff, show_replay, show_runs, show_trace
from medgen.errors import BadInput

commands = typer.Typer(
    help="Look into runs, compare them, repeat them, fork them, export them.", no_args_is_help=True
)

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's id, the beginning of it, or its folder.", show_default=False
    ),
]
Runs = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the runs; MEDGEN_RUNS when not given.")
]


class Format(StrEnum):
    """Forms that a trace can be exported in."""

    otlp = "otlp"
    jsonl = "jsonl"


@commands.command(
    "list",
    epilog=examples(
        "medgen trace list",
        'medgen trace list --search effusion --modality "Chest X-ray" --not-accepted',
    ),
)
def list_(
    runs: Runs = None,
    search: Annotated[str, typer.Option(help="Words of the prompt or the id.")] = "",
    modality: Modality = None,
    accepted: Annotated[
        bool | None,
        typer.Option("--accepted/--not-accepted", help="Only runs that were, or were not."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first; with --json a line a run."""
    from medgen.graphs.runs import list_runs

    found = list_runs(runs, search=search, modality=modality, accepted=accepted)
    if as_json:
        for run in found:
            print_json(run)
    else:
        show_runs(found)


@commands.command(
    epilog=examples("medgen trace show 20260722-1405", "medgen trace show runs/RUN --html")
)
def show(
    run: RunName,
    runs: Runs = None,
    html: Annotated[
        bool, typer.Option("--html", help="Write the run's page anew and print where it is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show why a run went as it did: plan, facts, rounds, prompts, measurements, verdicts, time."""
    with working(as_json):
        from medgen.graphs.runs import load_run, open_run

        folder = open_run(run, runs)
        trace = load_run(folder)
        if html:
            from medgen.graphs.trace_html import write_page

            typer.echo(one_line(write_page(folder)))
            return
    if as_json:
        print_json(trace)
    else:
        show_trace(trace)


@commands.command(epilog=examples("medgen trace diff RUN OTHER", "medgen trace diff A B --json"))
def diff(a: RunName, b: RunName, runs: Runs = None, as_json: Json = False) -> None:
    """Show what differs between two runs."""
    with working(as_json):
        from medgen.graphs.runs import load_run, open_run
        from medgen.graphs.trace_diff import diff as compare

        found = compare(load_run(open_run(a, runs)), load_run(open_run(b, runs)))
    if as_json:
        print_json(found)
    else:
        show_diff(found)


@commands.command(epilog=examples("medgen trace replay RUN", "medgen trace replay RUN --out again"))
def replay(run: RunName, runs: Runs = None, out: Out = None, as_json: Json = False) -> None:
    """Run a run again with its request, seed and settings, and compare the images' bytes.

    Exits 0 when all are identical, 1 when one is not. A replay is kept only if it differs, or with
    --out.
    """
    with working(as_json):
        from medgen.graphs.replaying import replay as run_again
        from medgen.graphs.runs import open_run

        folder = open_run(run, runs)
        with LiveSteps(visible=not as_json) as steps:
            found = run_again(folder, out=out, on_start=steps.start, on_event=steps.event)
    if as_json:
        print_json(found)
    else:
        show_replay(found)
    raise typer.Exit(0 if found.identical else FAILED)


@commands.command(
    epilog=examples(
        "medgen trace fork RUN --at compose --set seed=8",
        "medgen trace fork RUN --at generate --round 1 --set structured.cardiothoracic_ratio=0.6",
        'medgen trace fork RUN --at parse --set prompt="severe cardiomegaly, chest X-ray"',
        "medgen trace fork RUN --at record --set best=image0-round1-1",
    )
)
def fork(
    run: RunName,
    at: Annotated[
        str, typer.Option(metavar="NODE", help="The first node to run again.", show_default=False)
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="A change; a wrong field says which there are."
        ),
    ] = None,
    round: Annotated[
        int | None, typer.Option(min=1, help="Which round's node; the last when not given.")
    ] = None,
    runs: Runs = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Go on from the middle of a run with a change, as a new run; the old one stays as it is.

    Exits as `medgen agent` does.
    """
    asked = _pairs(changes or [])
    with working(as_json):
        from medgen.graphs.forking import fork as go_on
        from medgen.graphs.runs import open_run

        folder = open_run(run, runs)
        with LiveSteps(visible=not as_json) as steps:
            result = go_on(
                folder,
                at,
                asked,
                round=round,
                out=out,
                on_start=steps.start,
                on_event=steps.event,
            )
    if as_json:
        print_json(result)
    else:
        show_run(result)
    raise typer.Exit(0 if result.accepted else FEWER_ACCEPTED)


def _pairs(entries: Sequence[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name.strip() and equals):
            raise BadInput(f"--set {entry!r} is not FIELD=VALUE, such as seed=8")
        values[name.strip()] = value
    return values


@commands.command(
    epilog=examples(
        "medgen trace export RUN --format jsonl > spans.jsonl",
        "medgen trace export RUN --format otlp --endpoint http://localhost:4318/v1/traces",
    )
)
def export(
    run: RunName,
    format: Annotated[Format, typer.Option(help="OpenTelemetry over HTTP, or lines of JSON.")],
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where OTLP goes; OTEL_EXPORTER_OTLP_ENDPOINT when not given."
        ),
    ] = None,
    runs: Runs = None,
) -> None:
    """Export a run's spans, with the times they had. (Live: MEDGEN_TRACING, see docs/traces.md.)"""
    from medgen.graphs.runs import load_run, open_run
    from medgen.graphs.trace_export import send_otlp, span_lines

    trace = load_run(open_run(run, runs))
    if format is Format.jsonl:
        for line in span_lines(trace):
            typer.echo(line)
    else:
        with working(as_json=True):
            sent = send_otlp(trace, endpoint)
        typer.echo(f"{sent} spans sent")

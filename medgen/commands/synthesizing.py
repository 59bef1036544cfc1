"""The command that makes whole datasets."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import FEWER_ACCEPTED, MAX_SEED, Json, examples, print_json, working
from medgen.console.synthesis import LiveSynthesis, show_estimate, show_outcome
from medgen.errors import BadInput

commands = typer.Typer()


class Where(StrEnum):
    """Where workers run."""

    local = "local"
    ray = "ray"


@commands.command(
    epilog=examples(
        "medgen synthesize dataset.yaml --out datasets/chest --dry-run",
        "medgen synthesize dataset.yaml --out datasets/chest --workers 4 --seed 7",
        "medgen synthesize prompts.csv --out datasets/prompts",
        "medgen synthesize dataset.yaml --out datasets/chest --resume",
        "medgen synthesize dataset.yaml --out s3://bucket/chest --engine ray --address auto",
        "medgen synthesize --schema > synthesis.schema.json",
    )
)
def synthesize(
    spec: Annotated[
        Path | None,
        typer.Argument(
            help="What to make: a specification (YAML), or prompts (CSV: id,prompt,modality).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the dataset, or a URL such as s3://bucket/set.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Over the specification's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Workers; one a core when not given.")
    ] = None,
    engine: Annotated[Where, typer.Option(help="Processes of this machine, or Ray.")] = Where.local,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster's; one is started here when not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that stopped.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, and say what it would take; writes nothing.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the specification's JSON schema.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a dataset: many images, each drawn and verified as an agent run, and a manifest.

    The same specification and seed give the same images and manifest, whatever the number of
    workers. Exits 0 when every quota was met, 3 when the budget ended before.
    """
    if schema:
        from medgen.graphs.synthesis_spec import schema as spec_schema

        typer.echo(json.dumps(spec_schema(), indent=2))
        return
    if spec is None or out is None:
        raise BadInput("give a specification and --out FOLDER (see: medgen synthesize --help)")
    with working(as_json), LiveSynthesis(visible=not as_json) as live:
        if dry_run:
            from medgen.graphs.synthesis_estimate import estimate

            told = estimate(spec, out, seed=seed, workers=workers)
        else:
            from medgen.graphs.synthesis import synthesize as make

            outcome = make(
                spec,
                out,
                seed=seed,
                workers=workers,
                engine=engine.value,
                address=address,
                resume=resume,
                on_progress=live.progress,
                on_checked=live.checked,
            )
    if dry_run:
        print_json(told) if as_json else show_estimate(told)
        return
    print_json(outcome) if as_json else show_outcome(outcome)
    raise typer.Exit(0 if outcome.kept >= outcome.wanted else FEWER_ACCEPTED)

"""Commands that learn from feedback: a whole round, the policy alone, and which adapter draws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medgen.commands import rlhf_selector
from medgen.commands.shared import Json, examples, print_json, working
from medgen.console.progress import Bars, TrainingBar
from medgen.console.rlhf import show_promotions, show_round

commands = typer.Typer(help="Learn from feedback: selector, policy, rounds.", no_args_is_help=True)
commands.registered_commands.extend(rlhf_selector.commands.registered_commands)

Config = Annotated[Path, typer.Option("--config", "-c", help="Configuration (YAML).")]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Folder to write to, over the configuration's.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change an entry; dots go down."),
]


def _entries(changes: list[str] | None, out: Path | None) -> dict[str, Any]:
    from medgen.generator.training.config import parse_changes

    entries = parse_changes(changes or [])
    return entries if out is None else {**entries, "out": str(out)}


@commands.command(
    epilog=examples(
        "medgen rlhf run --config configs/rlhf.yaml",
        "medgen rlhf run --config configs/rlhf.yaml --set policy.method=dpo --out runs/dpo",
        "medgen rlhf run --config configs/rlhf_multistage.yaml",
        "accelerate launch --num_processes 2 -m medgen.cli rlhf run --config configs/rlhf.yaml",
    )
)
def run(
    config: Config, out: OutFolder = None, changes: Changes = None, as_json: Json = False
) -> None:
    """Do a whole round: snapshot, selector, policy, drawings before and after, report.

    With `kind: multistage` first: train, draw and keep the best, retrain. A killed round goes on
    where it was by the same command. Nothing is promoted by itself.
    """
    with working(as_json):
        from medgen.graphs.rlhf_multistage import run_configured

        with TrainingBar() as bar, Bars() as bars:
            report = run_configured(config, _entries(changes, out), bar, bars)
    if as_json:
        print_json(report)
    else:
        show_round(report)


@commands.command(
    epilog=examples(
        "medgen rlhf train --config configs/rlhf_policy.yaml",
        "medgen rlhf train --config configs/rlhf_policy.yaml --set beta=5000 --set method=dpo",
    )
)
def train(config: Config, out: OutFolder = None, changes: Changes = None) -> None:
    """Train an adapter on a feedback log; goes on from its last checkpoint."""
    with working(as_json=False):
        from medgen.feedback.policy import train_policy
        from medgen.feedback.policy_config import PolicyConfig
        from medgen.generator.training.config import checked, read_config

        given = checked(PolicyConfig, read_config(config, _entries(changes, out)), config)
        with TrainingBar() as bar:
            folder = train_policy(given, bar)
    typer.echo(folder)


@commands.command(epilog=examples("medgen rlhf promote runs/rlhf/policy/seed-0/adapter"))
def promote(
    adapter: Annotated[Path, typer.Argument(help="An adapter's folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Draw with an adapter from now on, wherever its base draws."""
    from medgen.generator.promotion import promote as promote_adapter

    one = promote_adapter(adapter)
    if as_json:
        print_json(one)
    else:
        typer.echo(f"adapter {one.adapter} draws from now on: {one.folder}")


@commands.command(epilog=examples("medgen rlhf rollback"))
def rollback(as_json: Json = False) -> None:
    """Take the last promotion back: the one before draws again, or the base alone."""
    from medgen.generator.promotion import current_base
    from medgen.generator.promotion import rollback as roll_back

    now = roll_back(current_base())
    if as_json:
        from medgen.generator.promotion import status as promotions

        print_json(promotions())
    else:
        typer.echo(f"adapter {now.adapter} draws again" if now else "the base draws alone again")


@commands.command(epilog=examples("medgen rlhf status", "medgen rlhf status --json"))
def status(as_json: Json = False) -> None:
    """Say which adapter draws, and which were promoted before."""
    from medgen.generator.promotion import status as promotions

    found = promotions()
    if as_json:
        print_json(found)
    else:
        show_promotions(found)

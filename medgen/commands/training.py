"""The command that trains the generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import examples, working
from medgen.console.progress import TrainingBar

commands = typer.Typer()


@commands.command(
    epilog=examples(
        "medgen train configs/diffusion.yaml",
        "medgen train configs/diffusion.yaml --set steps=4000 --set objective.weighting=min_snr",
        "medgen train configs/finetune.yaml --set base=FOLDER --set method=qlora",
        "accelerate launch --num_processes 2 -m medgen.cli train configs/diffusion.yaml",
    )
)
def train(
    config: Annotated[Path, typer.Argument(help="Configuration (YAML).", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to, over the configuration's.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change an entry; dots go down."),
    ] = None,
) -> None:
    """Train the generator, or fine-tune a large model; goes on from its last checkpoint."""
    with working(as_json=False):
        from medgen.generator.training.config import load_config, parse_changes
        from medgen.generator.training.loop import train as train_generator

        entries = parse_changes(changes or [])
        given = load_config(config, entries if out is None else {**entries, "out": str(out)})
        with TrainingBar() as bar:
            folder = train_generator(given, bar)
    typer.echo(folder)

"""Commands on a dataset's folder: count, merge, split, verify, export, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import Json, Modality, examples, print_json, working
from medgen.console.datasets import show_export, show_stats
from medgen.console.progress import Bars

commands = typer.Typer(
    help="Datasets that medgen synthesize made: count, split, merge, verify, export, describe.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(help="A dataset's folder.", show_default=False)]


@commands.command(
    "stats", epilog=examples("medgen dataset stats films", "medgen dataset stats films --json")
)
def stats(folder: Folder, as_json: Json = False) -> None:
    """Count images by label and property: yields, balance, reasons of rejection, distances."""
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.data.dataset_folder import open_dataset
        from medgen.data.dataset_stats import measure

        found = measure(open_dataset(folder), bars)
    if as_json:
        print_json(found)
    else:
        show_stats(found)


@commands.command(
    "export",
    epilog=examples(
        "medgen dataset export films --format imagefolder --out films_folder",
        "medgen dataset export films --format dicom --out films_dicom",
        'medgen dataset export mixed --format chexgenbench --modality "Chest X-ray" --out bench',
    ),
)
def export(
    folder: Folder,
    format: Annotated[
        str,
        typer.Option(
            help="minim-csv, imagefolder, webdataset, chexgenbench, dicom or parquet.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder to write to.", show_default=False)],
    include: Annotated[str, typer.Option(help="accepted, rejected or all images.")] = "accepted",
    modality: Modality = None,
    as_json: Json = False,
) -> None:
    """Write the images in a format of the field; a dataset that was split keeps its splits."""
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.data.dataset_folder import open_dataset
        from medgen.data.exports.export import export as write

        exported = write(open_dataset(folder), format, out, include, modality, bars)
    if as_json:
        print_json(exported)
    else:
        show_export(exported)


@commands.command("card", epilog=examples("medgen dataset card films"))
def card(folder: Folder, as_json: Json = False) -> None:
    """Write the datasheet (Markdown and HTML) and the Croissant metadata of a dataset."""
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.graphs.datasheet import write_card

        files = write_card(folder, bars)
    if as_json:
        print_json(files)
        return
    for path in files.files:
        typer.echo(path)

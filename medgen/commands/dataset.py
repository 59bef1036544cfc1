"""Commands on a dataset's folder: count, merge, split, verify, export, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import (
    FAILED,
    Json,
    Modality,
    Seed,
    examples,
    print_json,
    working,
)
from medgen.console.datasets import (
    show_check,
    show_export,
    show_merge,
    show_split,
    show_stats,
)
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
    "split",
    epilog=examples(
        "medgen dataset split films",
        "medgen dataset split films --parts train=0.7,val=0.1,test=0.2 --seed 3 --replace",
    ),
)
def split(
    folder: Folder,
    parts: Annotated[str, typer.Option(help="Names and shares.")] = "train=0.8,val=0.1,test=0.1",
    seed: Seed = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Split a dataset again that was split.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write splits.csv: no group in two parts, each label in its share."""
    with working(as_json):
        from medgen.data.dataset_folder import open_dataset
        from medgen.data.dataset_split import parse_shares
        from medgen.data.dataset_split import split as assign

        report = assign(open_dataset(folder), parse_shares(parts), seed, replace)
    if as_json:
        print_json(report)
    else:
        show_split(report)


@commands.command(
    "merge",
    epilog=examples(
        "medgen dataset merge films fundi --out all",
        "medgen dataset merge monday tuesday --prefix --out week",
    ),
)
def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="Two or more datasets.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="A new folder to write to.", show_default=False)],
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Put each dataset's name before its ids and groups.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make one dataset of several, every file checked; ids that clash are refused."""
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.data.dataset_merge import merge as write

        merged = write(folders, out, prefix, bars)
    if as_json:
        print_json(merged)
    else:
        show_merge(merged)


@commands.command(
    "verify",
    epilog=examples("medgen dataset verify films", "medgen dataset verify films --measure --json"),
)
def verify(
    folder: Folder,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run the verifier again on every image.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that read images.")] = 2,
    as_json: Json = False,
) -> None:
    """Check every file against the manifest: hashes, sizes, marks, copies, orphans, splits.

    Exits 1 when something is wrong or a verdict changed; look-alike images are told, no more.
    """
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.data.dataset_check import check_dataset

        report = check_dataset(folder, workers, bars)
        if measure:
            from medgen.graphs.remeasure import remeasure

            remeasure(report, progress=bars)
    if as_json:
        print_json(report)
    else:
        show_check(report)
    raise typer.Exit(FAILED if report.counts else 0)


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

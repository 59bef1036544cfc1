"""Commands that measure images: each by itself, or many against real ones."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import (
    UNACCEPTABLE_ARGUMENTS,
    Json,
    Modality,
    Seed,
    examples,
    print_json,
    working,
)
from medgen.console.evaluations import show_evaluation
from medgen.console.images import show_verification
from medgen.console.progress import Bars, spinner

commands = typer.Typer()


@commands.command(
    epilog=examples(
        'medgen verify image.png --prompt "cardiomegaly, chest X-ray"',
        'medgen verify pictures/ --modality "brain MRI" --json',
        "medgen verify table.csv --json --overlay drawn/",
    )
)
def verify(
    image: Annotated[
        Path,
        typer.Argument(help="An image, a folder of images, or a table (path,text,modal)."),
    ],
    prompt: Annotated[
        str | None, typer.Option(help="What the image should show; its findings are checked.")
    ] = None,
    modality: Modality = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures of what was measured: masks, lines, boxes."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, one an image.")
    ] = False,
) -> None:
    """Measure an image: modality, findings, quality, distance to the training images.

    Without a prompt every finding that can be measured is told; a table's texts are its prompts.
    """
    with working(as_json), spinner("loading", visible=not as_json):
        from medgen.graphs.verify import verify as measure

        results = measure(image, prompt=prompt, modality=modality, overlay=overlay)
    answered = False
    while True:
        with working(as_json):
            result = next(results, None)
        if result is None:
            break
        answered = answered or result.error is None
        if as_json:
            print_json(result)
        else:
            show_verification(result)
    if not answered:
        raise typer.Exit(UNACCEPTABLE_ARGUMENTS)


@commands.command(
    epilog=examples(
        "medgen evaluate --real test.csv --synthetic drawn.csv --train train.csv --size 256",
        "medgen evaluate --real test.csv --synthetic drawn.csv --suite fidelity,alignment",
        "medgen evaluate --real test.csv --synthetic prompt_INFO.csv --extractor inception",
    )
)
def evaluate(
    real: Annotated[
        Path, typer.Option(help="Table of real images that the generator did not learn from.")
    ],
    synthetic: Annotated[Path, typer.Option(help="Table of the images to judge.")],
    train: Annotated[
        Path | None,
        typer.Option(help="Table of the training images; privacy and utility need it."),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Which suites, separated by commas.")
    ] = "fidelity,diversity,alignment,privacy,utility",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the report; finished suites in it are not run again."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Bring all images to squares of this side, padded, not squashed."),
    ] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Feature extractor, repeatable: medgen (bundled), inception[:FILE], rad-dino, or "
            "a vision model's folder or hub id.",
        ),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Image-text scorer: an open_clip model's folder or hub id; else the bundled one.",
        ),
    ] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="Folder with alexnet.safetensors, which LPIPS needs.")
    ] = None,
    seed: Seed = 0,
    minim: Annotated[
        bool, typer.Option("--minim", help="Also give MINIM's own MS-SSIM, for comparison.")
    ] = False,
    pictures: Annotated[
        bool,
        typer.Option(help="Show the worst pairs, which hold real training images."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Measure synthetic images against real ones: fidelity, diversity, alignment, privacy, utility.

    A table is `path,text,modal[,label,group,findings]` (CSV or Parquet), MINIM's, or
    CheXGenBench's prompt_INFO.csv. Writes metrics.json, report.md and report.html.
    """
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.graphs.evaluate import REPORT
        from medgen.graphs.evaluate import evaluate as measure

        evaluation, folder = measure(
            real,
            synthetic,
            train,
            suites=[name.strip() for name in suite.split(",") if name.strip()],
            out=out,
            size=size,
            extractors=extractor or ["medgen"],
            seed=seed,
            clip=clip,
            lpips=lpips,
            minim=minim,
            pictures=pictures,
            command=shlex.join(["medgen", *sys.argv[1:]]),
            progress=bars,
        )
    if as_json:
        print_json(evaluation)
    else:
        show_evaluation(evaluation, str(folder / REPORT))

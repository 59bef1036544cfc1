"""Commands that draw: with an agent's reasoning and checks, or once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from medgen.commands.shared import (
    FEWER_ACCEPTED,
    PROMPT_HELP,
    Images,
    Json,
    Modality,
    Out,
    Prompt,
    Seed,
    examples,
    print_json,
    working,
)
from medgen.console.images import show_drawing, show_run
from medgen.console.progress import LiveSteps, spinner
from medgen.errors import BadInput

commands = typer.Typer()


@commands.command(
    epilog=examples(
        'medgen agent "cardiomegaly, chest X-ray"',
        'medgen agent "lung with pneumonia, chest X-ray" -n 2 --rounds 4 --seed 7 --json',
        "medgen agent --resume RUN",
    )
)
def agent(
    prompt: Annotated[
        str | None,
        typer.Argument(help=PROMPT_HELP, show_default=False),
    ] = None,
    modality: Modality = None,
    images: Images = 1,
    seed: Seed = 0,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=20, help="Rounds of drawing and checking, at most.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=64, help="Candidates drawn a round.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was cut off.")
    ] = None,
) -> None:
    """Reason about a request, draw it, measure what was drawn, refine, and explain.

    Exits 0 when all N images were accepted, 3 when fewer were (the best are written and marked).
    """
    if prompt is None and resume is None:
        raise BadInput('no prompt: say what to draw, such as "cardiomegaly, chest X-ray"')
    with working(as_json):
        from medgen.graphs.agent import Agent

        with LiveSteps(visible=not as_json) as steps:
            run = Agent().run(
                prompt or "",
                modality=modality,
                seed=seed,
                images=images,
                rounds=rounds,
                candidates=candidates,
                out=out,
                resume=resume,
                on_start=steps.start,
                on_event=steps.event,
            )
    if as_json:
        print_json(run)
    else:
        show_run(run)
    raise typer.Exit(0 if run.accepted else FEWER_ACCEPTED)


@commands.command(
    epilog=examples(
        'medgen generate "right lower lobe pneumonia, chest X-ray" --seed 3',
        'medgen generate "cardiomegaly, chest X-ray" --structured cardiothoracic_ratio=0.6 -n 4',
        'medgen generate "glaucoma, fundus" --raw --steps 30 --guidance 4 --out pictures --json',
    )
)
def generate(
    prompt: Prompt,
    modality: Modality = None,
    images: Images = 1,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=2, max=1000, help="Sampling steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, max=30, help="Classifier-free guidance scale.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    structured: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A structured condition, such as view=PA."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Draw the prompt as typed, without composing one.")
    ] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Draw once from a prompt, without verification."""
    conditions = _pairs(structured or [])
    with working(as_json), spinner("drawing", visible=not as_json):
        from medgen.graphs.generate import generate as draw

        drawing = draw(
            prompt,
            modality=modality,
            images=images,
            seed=seed,
            steps=steps,
            guidance=guidance,
            negative=negative,
            structured=conditions,
            raw=raw,
            out=out,
        )
    if as_json:
        print_json(drawing)
    else:
        show_drawing(drawing)


def _pairs(entries: Sequence[str]) -> dict[str, float | str]:
    values: dict[str, float | str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise BadInput(f"--structured {entry!r} is not KEY=VALUE, such as view=PA")
        try:
            values[key.strip()] = float(value)
        except ValueError:
            values[key.strip()] = value.strip()
    return values

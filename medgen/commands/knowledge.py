"""Commands that build and ask the knowledge store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import Json, Modality, examples, print_json, working
from medgen.console.facts import show_counts, show_facts
from medgen.console.progress import spinner
from medgen.console.text import one_line

commands = typer.Typer(help="Build, ask and widen the knowledge store.", no_args_is_help=True)


@commands.command("build", epilog=examples("medgen knowledge build"))
def knowledge_build(as_json: Json = False) -> None:
    """Build the knowledge store; a run does so by itself when there is none."""
    with working(as_json), spinner("building", visible=not as_json):
        from medgen.graphs.knowledge import build

        state = build()
    if as_json:
        print_json(state)
    else:
        typer.echo(f"{'built' if state.built else 'already there'}: {one_line(state.folder)}")


@commands.command(
    "query", epilog=examples('medgen knowledge query "enlarged heart" --modality "chest X-ray"')
)
def knowledge_query(
    text: Annotated[str, typer.Argument(help="What to look up, in words.", show_default=False)],
    modality: Modality = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, max=100, help="Facts at most.")] = 8,
    as_json: Json = False,
) -> None:
    """Look something up: facts with their ids, scores and sources."""
    with working(as_json), spinner("looking up", visible=not as_json):
        from medgen.graphs.knowledge import query

        answer = query(text, modality, count)
    if as_json:
        print_json(answer)
    else:
        show_facts(answer.facts)


@commands.command("stats", epilog=examples("medgen knowledge stats --json"))
def knowledge_stats(as_json: Json = False) -> None:
    """Say what the store holds: terms, signs, relations, findings by modality, cases, imports."""
    with working(as_json), spinner("counting", visible=not as_json):
        from medgen.graphs.knowledge import stats

        record = stats()
    if as_json:
        print_json(record)
    else:
        show_counts(record.folder, record.counts | record.findings | record.cases)


@commands.command(
    "show",
    epilog=examples("medgen knowledge show HP:0001640", 'medgen knowledge show "pleural effusion"'),
)
def knowledge_show(
    what: Annotated[str, typer.Argument(help="A fact's id, or a name.", show_default=False)],
    modality: Modality = None,
    as_json: Json = False,
) -> None:
    """Show one fact with its relations and looks."""
    with working(as_json), spinner("looking up", visible=not as_json):
        from medgen.graphs.knowledge import show

        shown = show(what, modality)
    if as_json:
        print_json(shown)
    else:
        show_facts([shown.fact, *shown.relations])


@commands.command(
    "similar",
    epilog=examples(
        'medgen knowledge similar "child with pneumonia" --modality "chest X-ray"',
        "medgen knowledge similar --image film.png --finding cardiomegaly",
    ),
)
def knowledge_similar(
    text: Annotated[str | None, typer.Argument(help="What the case is like.")] = None,
    image: Annotated[Path | None, typer.Option(help="Ask by an image instead.")] = None,
    modality: Modality = None,
    finding: Annotated[str | None, typer.Option(help="Only cases with this finding.")] = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, max=100)] = 5,
    as_json: Json = False,
) -> None:
    """Find real cases like a text or an image."""
    with working(as_json), spinner("looking up", visible=not as_json):
        from medgen.graphs.knowledge import similar

        answer = similar(text, image, modality, finding, count)
    if as_json:
        print_json(answer)
    else:
        show_facts(answer.facts)

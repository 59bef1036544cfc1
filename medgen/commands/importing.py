"""Commands that widen the knowledge store by what the user holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medgen.commands.shared import Json, examples, print_json, working
from medgen.console.progress import CountedSteps
from medgen.console.text import one_line

commands = typer.Typer(
    help="Import what you hold: terminologies, literature, cases.", no_args_is_help=True
)

Files = Annotated[list[Path], typer.Argument(help="Files to read.", show_default=False)]


@commands.command("radlex", epilog=examples("medgen knowledge import radlex RadLex.owl"))
def radlex(
    path: Annotated[Path, typer.Argument(help="RadLex.owl, OWL in RDF/XML.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Import RadLex (or any OWL file of named classes)."""
    _import_terms("radlex", path, as_json)


@commands.command("snomed", epilog=examples("medgen knowledge import snomed SnomedCT_Release/"))
def snomed(
    path: Annotated[
        Path,
        typer.Argument(help="Folder of an RF2 release with Snapshot files.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Import SNOMED CT; needs a licence of your own."""
    _import_terms("snomed", path, as_json)


@commands.command("obo", epilog=examples("medgen knowledge import obo hp.obo"))
def obo(
    path: Annotated[Path, typer.Argument(help="An OBO file.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Import any ontology in OBO form."""
    _import_terms("obo", path, as_json)


@commands.command("text", epilog=examples("medgen knowledge import text notes/*.txt"))
def text(paths: Files, as_json: Json = False) -> None:
    """Read text files with the language model of MEDGEN_LLM."""
    _import_literature(paths, as_json)


@commands.command("pdf", epilog=examples("medgen knowledge import pdf papers/*.pdf"))
def pdf(paths: Files, as_json: Json = False) -> None:
    """Read PDF files with the language model of MEDGEN_LLM."""
    _import_literature(paths, as_json)


@commands.command("cases", epilog=examples("medgen knowledge import cases table.csv"))
def cases(
    table: Annotated[
        Path, typer.Argument(help="CSV with columns path, text, modal.", show_default=False)
    ],
    images: Annotated[bool, typer.Option(help="Embed the images too.")] = True,
    as_json: Json = False,
) -> None:
    """Import real image-text rows, found again by words and by image."""
    with working(as_json), CountedSteps(visible=not as_json) as steps:
        from medgen.graphs.knowledge import import_cases

        result = import_cases(table, images, steps.progress)
    if as_json:
        print_json(result)
        return
    if result.unreadable_images:
        typer.echo(f"{result.unreadable_images} images could not be read", err=True)
    typer.echo(f"{result.rows} rows, {result.new} new; {result.captions} captions in all")


def _import_terms(kind: str, path: Path, as_json: bool) -> None:
    with working(as_json), CountedSteps(visible=not as_json) as steps:
        from medgen.graphs.knowledge import import_terms

        result = import_terms(kind, path, steps.progress)
    if as_json:
        print_json(result)
    elif result.already_there:
        typer.echo(f"already there: {result.terms} terms of {one_line(path)}")
    else:
        typer.echo(
            f"{result.terms} terms ({result.changed} new or changed), {result.relations} new "
            f"relations, {result.seconds:.0f} s"
        )


def _import_literature(paths: list[Path], as_json: bool) -> None:
    with working(as_json), CountedSteps(visible=not as_json) as steps:
        from medgen.graphs.knowledge import import_literature

        result = import_literature(paths, steps.progress)
    if as_json:
        print_json(result)
        return
    for reason in result.failed.values():
        typer.echo(f"skipped: {one_line(reason)}", err=True)
    typer.echo(f"{result.new} new files; {result.entities} entities, {result.relations} relations")

"""The `medgen` command: arguments in, records out.

Knows options, exit codes and where answers go (`--json` to stdout alone, everything else for
eyes); what the commands do lives in `medgen.graphs` and `medgen.doctor`, imported only when a
command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from medgen.console import (
    Bars,
    CountedSteps,
    LiveSteps,
    RowCounter,
    TrainingBar,
    one_line,
    show_counts,
    show_critique,
    show_diagnosis,
    show_drawing,
    show_evaluation,
    show_facts,
    show_plan,
    show_run,
    show_table_report,
    spinner,
)
from medgen.errors import BadInput, MedgenError

if TYPE_CHECKING:
    from medgen.records import Reading, Record

MAX_IMAGES = 64
MAX_SEED = 2**32 - 1
FEWER_ACCEPTED = 3
UNACCEPTABLE_ARGUMENTS = 2
FAILED = 1
DEBUG = "MEDGEN_DEBUG"
PROMPT_HELP = 'What to draw, such as "cardiomegaly, chest X-ray".'


def _fail(message: object, code: int) -> NoReturn:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.exit(code)


class OneLineErrors(TyperGroup):
    """A command group whose every failure is one line on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and exit: 0 done, 1 failure, 2 bad input, 3 fewer accepted."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except MedgenError as error:
            _fail(error, error.exit_code)
        except typer.Abort:
            _fail("interrupted", FAILED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        except Exception as error:
            # Usage errors, known by their shape: some typer releases carry a click of their own.
            if hasattr(error, "format_message") and hasattr(error, "ctx"):
                context = error.ctx
                where = f" (see: {context.command_path} --help)" if context else ""
                _fail(f"{error.format_message()}{where}", UNACCEPTABLE_ARGUMENTS)
            hint = "" if os.environ.get(DEBUG) else f"; set {DEBUG}=1 to see the traceback"
            _fail(f"{type(error).__name__}: {error}{hint}", FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(lines)


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=_examples(
        'medgen agent "cardiomegaly, chest X-ray"',
        'medgen generate "glioma, brain MRI" -n 4 --seed 7 --out pictures',
        "medgen doctor",
    ),
)
knowledge_app = typer.Typer(help="Build, ask and widen the knowledge store.", no_args_is_help=False)
app.add_typer(knowledge_app, name="knowledge")
import_app = typer.Typer(help="Import what you hold: terminologies, literature, cases.")
knowledge_app.add_typer(import_app, name="import")
data_app = typer.Typer(help="Tables of images.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Prompt = Annotated[str, typer.Argument(help=PROMPT_HELP, show_default=False)]
Modality = Annotated[
    str | None,
    typer.Option("--modality", "-m", help="Modality, over the one named in the prompt."),
]
Images = Annotated[
    int, typer.Option("--images", "-n", min=1, max=MAX_IMAGES, help="How many images.")
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same images.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder to write to; a new one under runs/ when not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@contextmanager
def _working(as_json: bool) -> Iterator[None]:
    """Keep what libraries print away from stdout (for --json) and their warnings from the eye."""
    if not os.environ.get(DEBUG):
        warnings.simplefilter("ignore")
        for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def _print_json(record: Record) -> None:
    typer.echo(json.dumps(record.model_dump(mode="json"), ensure_ascii=False))


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


@app.callback(invoke_without_command=True)
def medgen(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Synthetic medical images: reasoned about, drawn, checked by measurement, explained.

    For research and teaching, never for diagnosis.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"medgen {installed('medgen')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@app.command(
    epilog=_examples(
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
    with _working(as_json):
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
        _print_json(run)
    else:
        show_run(run)
    raise typer.Exit(0 if run.accepted else FEWER_ACCEPTED)


@app.command(
    epilog=_examples(
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
    with _working(as_json), spinner("drawing", visible=not as_json):
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
        _print_json(drawing)
    else:
        show_drawing(drawing)


@app.command(
    epilog=_examples(
        'medgen plan "chest X-ray: cardiomegaly with right pleural effusion"',
        'medgen plan "breast with tumor, MRI" --json',
        'medgen plan --table reports.csv --column findings --column impression -m "chest X-ray"',
    )
)
def plan(
    prompt: Annotated[str | None, typer.Argument(help=PROMPT_HELP, show_default=False)] = None,
    modality: Modality = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Plan every row of a .csv, .tsv or .jsonl: one JSON line a row."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The table's column of text; several are joined."),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="The column that names a row; else its number."),
    ] = None,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--request",
            help="Read whole reports, where contradictions are warnings, or requests, where they "
            "are errors; by the look of each text when not given.",
        ),
    ] = None,
    retrieve: Annotated[
        bool | None,
        typer.Option(
            "--retrieve/--no-retrieve",
            help="Look facts up and cite them; by default for a prompt, not for a table.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what would be drawn and measured, and from which facts; draws nothing.

    A table gives one JSON line a row, in order; a row that cannot be planned is a line with an
    `error`. Exits 2 when the table cannot be read or no row of it can be planned.
    """
    if (prompt is None) == (table is None):
        raise BadInput("give a prompt, or --table FILE with --column NAME: one of the two")
    reading: Reading | None = None if report is None else "report" if report else "request"
    if table is not None:
        _plan_table(table, tuple(column or ()), id_column, modality, reading, bool(retrieve))
        return
    if column or id_column:
        raise BadInput("--column and --id are for a table: give --table FILE")
    with _working(as_json), spinner("planning", visible=not as_json):
        from medgen.graphs.plan import plan_line

        line = plan_line(prompt or "", modality, reading=reading, retrieve=retrieve is not False)
    if as_json:
        _print_json(line)
    else:
        show_plan(line)


def _plan_table(
    path: Path,
    columns: tuple[str, ...],
    id_column: str | None,
    modality: str | None,
    reading: Reading | None,
    retrieve: bool,
) -> None:
    if not columns:
        raise BadInput("--table needs --column NAME: say which column holds the text")
    with _working(as_json=True):
        from medgen.graphs.plan import Table, plan_table

        table = Table(path, columns, id_column)
        lines = plan_table(table, modality, reading=reading, retrieve=retrieve)
    with RowCounter("planned") as counter:
        while True:
            with _working(as_json=True):
                line = next(lines, None)
            if line is None:
                break
            _print_json(line)
            counter.count(failed=line.error is not None)
    if counter.rows == counter.failed:
        raise BadInput(f"no row of {path} can be planned: see the error of each line")


@app.command(
    epilog=_examples(
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
    with _working(as_json), Bars(visible=not as_json) as bars:
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
        _print_json(evaluation)
    else:
        show_evaluation(evaluation, str(folder / REPORT))


@app.command(
    epilog=_examples(
        "medgen train configs/diffusion.yaml",
        "medgen train configs/diffusion.yaml --set steps=4000 --set objective.weighting=min_snr",
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
    """Train the generator; the same command goes on from the last checkpoint."""
    with _working(as_json=False):
        from medgen.generator.training.config import load_config, parse_changes
        from medgen.generator.training.loop import train as train_generator

        entries = parse_changes(changes or [])
        given = load_config(config, entries if out is None else {**entries, "out": str(out)})
        with TrainingBar() as bar:
            folder = train_generator(given, bar)
    typer.echo(folder)


@data_app.command(
    "check",
    epilog=_examples("medgen data check table.csv", "medgen data check table.csv --json"),
)
def data_check(
    table: Annotated[Path, typer.Argument(help="A table in any of the known forms.")],
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that decode.")] = 2,
    as_json: Json = False,
) -> None:
    """Look for broken images, duplicates, leakage between splits; count labels.

    Exits 1 when a problem was found.
    """
    with _working(as_json), RowCounter("looked at") as counter:
        from medgen.data.check import check_table

        report = check_table(table, workers, progress=counter.count_to)
    if as_json:
        _print_json(report)
    else:
        show_table_report(report)
    raise typer.Exit(FAILED if report.problems else 0)


@data_app.command(
    "convert",
    epilog=_examples(
        "medgen data convert drawn.csv prompt_INFO.csv --to chexgenbench",
        "medgen data convert minim.csv table.csv",
    ),
)
def data_convert(
    table: Annotated[Path, typer.Argument(help="A table in any of the known forms.")],
    target: Annotated[Path, typer.Argument(help="The CSV file to write.")],
    to: Annotated[str, typer.Option(help="medgen, minim or chexgenbench.")] = "medgen",
) -> None:
    """Rewrite a table of images in another form of the field."""
    from medgen.data.formats import FORMS, Reading, read_rows, write_rows

    if to not in FORMS:
        raise BadInput(f"--to {to} is no form: use {', '.join(FORMS)}")
    if target.exists():
        raise BadInput(f"{target} is there already: choose another name")
    reading = Reading()
    write_rows(read_rows(table, reading), target, to)
    for note in reading.notes:
        sys.stderr.write(f"{note}\n")
    typer.echo(str(target.resolve()))


@app.command(
    epilog=_examples(
        'medgen verify image.png --prompt "cardiomegaly, chest X-ray"',
        'medgen verify pictures/ --modality "brain MRI" --json',
    )
)
def verify(
    image: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    prompt: Annotated[
        str | None, typer.Option(help="What the image should show; its findings are checked.")
    ] = None,
    modality: Modality = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, one an image.")
    ] = False,
) -> None:
    """Measure an image: modality, findings, quality, distance to the training images."""
    with _working(as_json), spinner("loading", visible=not as_json):
        from medgen.graphs.verify import verify as measure

        results = measure(image, prompt=prompt, modality=modality)
    while True:
        with _working(as_json):
            result = next(results, None)
        if result is None:
            break
        if as_json:
            _print_json(result)
        else:
            show_critique(result.image, result.critique)


@app.command(epilog=_examples("medgen doctor", "medgen doctor --json"))
def doctor(as_json: Json = False) -> None:
    """Say what is installed, which weights load, what is missing, and what to do about it."""
    with _working(as_json), spinner("looking", visible=not as_json):
        from medgen.doctor import diagnose

        diagnosis = diagnose()
    if as_json:
        _print_json(diagnosis)
    else:
        show_diagnosis(diagnosis)
    raise typer.Exit(0 if diagnosis.ok else FAILED)


@knowledge_app.command("build", epilog=_examples("medgen knowledge build"))
def knowledge_build(as_json: Json = False) -> None:
    """Build the knowledge store; a run does so by itself when there is none."""
    with _working(as_json), spinner("building", visible=not as_json):
        from medgen.graphs.knowledge import build

        state = build()
    if as_json:
        _print_json(state)
    else:
        typer.echo(f"{'built' if state.built else 'already there'}: {one_line(state.folder)}")


@knowledge_app.command(
    "query", epilog=_examples('medgen knowledge query "enlarged heart" --modality "chest X-ray"')
)
def knowledge_query(
    text: Annotated[str, typer.Argument(help="What to look up, in words.", show_default=False)],
    modality: Modality = None,
    count: Annotated[int, typer.Option("--count", "-k", min=1, max=100, help="Facts at most.")] = 8,
    as_json: Json = False,
) -> None:
    """Look something up: facts with their ids, scores and sources."""
    with _working(as_json), spinner("looking up", visible=not as_json):
        from medgen.graphs.knowledge import query

        answer = query(text, modality, count)
    if as_json:
        _print_json(answer)
    else:
        show_facts(answer.facts)


@knowledge_app.command("stats", epilog=_examples("medgen knowledge stats --json"))
def knowledge_stats(as_json: Json = False) -> None:
    """Say what the store holds: terms, signs, relations, findings by modality, cases, imports."""
    with _working(as_json), spinner("counting", visible=not as_json):
        from medgen.graphs.knowledge import stats

        record = stats()
    if as_json:
        _print_json(record)
    else:
        show_counts(record.folder, record.counts | record.findings | record.cases)


@knowledge_app.command(
    "show",
    epilog=_examples(
        "medgen knowledge show HP:0001640", 'medgen knowledge show "pleural effusion"'
    ),
)
def knowledge_show(
    what: Annotated[str, typer.Argument(help="A fact's id, or a name.", show_default=False)],
    modality: Modality = None,
    as_json: Json = False,
) -> None:
    """Show one fact with its relations and looks."""
    with _working(as_json), spinner("looking up", visible=not as_json):
        from medgen.graphs.knowledge import show

        shown = show(what, modality)
    if as_json:
        _print_json(shown)
    else:
        show_facts([shown.fact, *shown.relations])


@knowledge_app.command(
    "similar",
    epilog=_examples(
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
    with _working(as_json), spinner("looking up", visible=not as_json):
        from medgen.graphs.knowledge import similar

        answer = similar(text, image, modality, finding, count)
    if as_json:
        _print_json(answer)
    else:
        show_facts(answer.facts)


def _import_terms(kind: str, path: Path, as_json: bool) -> None:
    with _working(as_json), CountedSteps(visible=not as_json) as steps:
        from medgen.graphs.knowledge import import_terms

        result = import_terms(kind, path, steps.progress)
    if as_json:
        _print_json(result)
    elif result.already_there:
        typer.echo(f"already there: {result.terms} terms of {one_line(path)}")
    else:
        typer.echo(
            f"{result.terms} terms ({result.changed} new or changed), {result.relations} new "
            f"relations, {result.seconds:.0f} s"
        )


@import_app.command("radlex", epilog=_examples("medgen knowledge import radlex RadLex.owl"))
def knowledge_import_radlex(
    path: Annotated[Path, typer.Argument(help="RadLex.owl, OWL in RDF/XML.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Import RadLex (or any OWL file of named classes)."""
    _import_terms("radlex", path, as_json)


@import_app.command("snomed", epilog=_examples("medgen knowledge import snomed SnomedCT_Release/"))
def knowledge_import_snomed(
    path: Annotated[
        Path,
        typer.Argument(help="Folder of an RF2 release with Snapshot files.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Import SNOMED CT; needs a licence of your own."""
    _import_terms("snomed", path, as_json)


@import_app.command("obo", epilog=_examples("medgen knowledge import obo hp.obo"))
def knowledge_import_obo(
    path: Annotated[Path, typer.Argument(help="An OBO file.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Import any ontology in OBO form."""
    _import_terms("obo", path, as_json)


def _import_literature(paths: list[Path], as_json: bool) -> None:
    with _working(as_json), CountedSteps(visible=not as_json) as steps:
        from medgen.graphs.knowledge import import_literature

        result = import_literature(paths, steps.progress)
    if as_json:
        _print_json(result)
        return
    for reason in result.failed.values():
        typer.echo(f"skipped: {one_line(reason)}", err=True)
    typer.echo(f"{result.new} new files; {result.entities} entities, {result.relations} relations")


Files = Annotated[list[Path], typer.Argument(help="Files to read.", show_default=False)]


@import_app.command("text", epilog=_examples("medgen knowledge import text notes/*.txt"))
def knowledge_import_text(paths: Files, as_json: Json = False) -> None:
    """Read text files with the language model of MEDGEN_LLM."""
    _import_literature(paths, as_json)


@import_app.command("pdf", epilog=_examples("medgen knowledge import pdf papers/*.pdf"))
def knowledge_import_pdf(paths: Files, as_json: Json = False) -> None:
    """Read PDF files with the language model of MEDGEN_LLM."""
    _import_literature(paths, as_json)


@import_app.command("cases", epilog=_examples("medgen knowledge import cases table.csv"))
def knowledge_import_cases(
    table: Annotated[
        Path, typer.Argument(help="CSV with columns path, text, modal.", show_default=False)
    ],
    images: Annotated[bool, typer.Option(help="Embed the images too.")] = True,
    as_json: Json = False,
) -> None:
    """Import real image-text rows, found again by words and by image."""
    with _working(as_json), CountedSteps(visible=not as_json) as steps:
        from medgen.graphs.knowledge import import_cases

        result = import_cases(table, images, steps.progress)
    if as_json:
        _print_json(result)
        return
    if result.unreadable_images:
        typer.echo(f"{result.unreadable_images} images could not be read", err=True)
    typer.echo(f"{result.rows} rows, {result.new} new; {result.captions} captions in all")


def main() -> None:
    """Entry point of the `medgen` script."""
    app()


if __name__ == "__main__":
    main()

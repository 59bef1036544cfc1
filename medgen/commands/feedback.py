"""Commands on the feedback log: rate, import, collect, export, count."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen.commands.shared import Json, examples, print_json, working
from medgen.console.feedback import rate_by_keyboard, show_collected, show_import, show_stats
from medgen.console.progress import Bars, spinner
from medgen.errors import BadInput

if TYPE_CHECKING:
    from medgen.feedback.records import Scale

commands = typer.Typer(
    help="Ratings of images: give, import, collect, export and count them.", no_args_is_help=True
)

Log = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="FILE|URL",
        help="The log; that of MEDGEN_FEEDBACK (feedback.sqlite) when not given.",
    ),
]


class Source(StrEnum):
    """Where labels come from, as on the command line."""

    human = "human"
    verifier = "verifier"
    simulated = "simulated"


@commands.command(
    epilog=examples(
        "medgen feedback rate --rater ann --level 3",
        'medgen feedback rate --rater ann --modality "Brain MRI" --scale 3',
    )
)
def rate(
    rater: Annotated[str, typer.Option(help="Who rates; the same name every time.")],
    level: Annotated[
        int | None, typer.Option(min=1, max=3, help="Expert level, 3 the most expert.")
    ] = None,
    scale: Annotated[int, typer.Option(help="Rate from 1 to 3 or to 5.")] = 5,
    modality: Annotated[
        str | None, typer.Option("--modality", "-m", help="Only images of this modality.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Only images of this run.")] = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Rate logged images that you have not rated, by one key each.

    Shows a picture's path and its prompt; open the path in a viewer of yours. The next picture is
    shown when the rating is in the log, so stop at any time and go on later.
    """
    from medgen.feedback.log import FeedbackLog
    from medgen.feedback.ratings_table import modality_name
    from medgen.feedback.session import RatingSession

    session = RatingSession(
        FeedbackLog.existing(log),
        rater,
        expert_level=level,
        scale=_scale(scale),
        modality=modality_name(modality) if modality else None,
        run=run,
    )
    rate_by_keyboard(session)
    if as_json:
        print_json(session.outcome())
    else:
        typer.echo(f"{session.rated} rated, {session.left} left")


@commands.command(
    "import",
    epilog=examples(
        "medgen feedback import ratings.csv",
        "medgen feedback import ratings.csv --rater ann --scale 5",
        "medgen feedback import other_log.jsonl",
    ),
)
def import_(
    file: Annotated[Path, typer.Argument(help="Ratings (CSV, Parquet) or an exported log.")],
    scale: Annotated[
        int | None, typer.Option(help="What the ratings go up to: 3 or 5.", show_default=False)
    ] = None,
    rater: Annotated[
        str | None, typer.Option(help="Who rated, where the table does not say.")
    ] = None,
    source: Annotated[
        Source | None, typer.Option(help="Where the ratings come from; people when not given.")
    ] = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Add ratings from a table (image_path,rating,modality,expert_level,prompt) or another log.

    More columns are read where they are there: rater, scale (3 or 5), source, comment, seconds.
    A table read twice is not counted twice.
    """
    with working(as_json), spinner("reading", visible=not as_json):
        from medgen.feedback.exchange import import_log
        from medgen.feedback.log import FeedbackLog
        from medgen.feedback.ratings_table import import_ratings

        opened = FeedbackLog(log)
        if file.suffix == ".jsonl":
            report = import_log(opened, file)
        else:
            report = import_ratings(
                opened,
                file,
                scale=None if scale is None else _scale(scale),
                rater=rater,
                source=None if source is None else source.value,
            )
    if as_json:
        print_json(report)
    else:
        show_import(report)


@commands.command(epilog=examples("medgen feedback collect datasets/five"))
def collect(
    dataset: Annotated[Path, typer.Argument(help="Folder that medgen synthesize wrote.")],
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Add a dataset's images, kept and rejected, to the log, so that they can be rated.

    Runs of medgen agent are in the log by themselves. A dataset collected twice is not counted
    twice.
    """
    with working(as_json), Bars(visible=not as_json) as bars:
        from medgen.feedback.log import FeedbackLog
        from medgen.graphs.synthesis_feedback import collect as collected

        report = collected(dataset, FeedbackLog(log), bars)
    if as_json:
        print_json(report)
    else:
        show_collected(report)


@commands.command(
    epilog=examples("medgen feedback export log.jsonl", "medgen feedback export ratings.csv")
)
def export(
    file: Annotated[Path, typer.Argument(help=".jsonl: the whole log; .csv: its ratings.")],
    log: Log = None,
) -> None:
    """Write the log to a new file; import reads both forms back."""
    from medgen.feedback.log import FeedbackLog

    typer.echo(str(FeedbackLog.existing(log).export(file).resolve()))


@commands.command(epilog=examples("medgen feedback stats", "medgen feedback stats --json"))
def stats(log: Log = None, as_json: Json = False) -> None:
    """Count what the log holds, and say how far its raters agree."""
    with working(as_json), spinner("counting", visible=not as_json):
        from medgen.feedback.log import FeedbackLog

        counted = FeedbackLog.existing(log).stats()
    if as_json:
        print_json(counted)
    else:
        show_stats(counted)


def _scale(value: int) -> Scale:
    if value not in (3, 5):
        raise BadInput(f"--scale {value} is no scale: use 3 or 5")
    return 3 if value == 3 else 5

"""Shows what a feedback log holds and what was imported, and lets a person rate by keyboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medgen.console.text import fold, note, one_line

if TYPE_CHECKING:
    from medgen.feedback.records import Agreement, ImportReport, LogStats
    from medgen.feedback.session import RatingSession
    from medgen.graphs.synthesis_feedback import Collected

SKIPPED_SHOWN = 5
END = ("", "q", "\x03", "\x04")  # end of input, q, Ctrl-C, Ctrl-D


def show_stats(stats: LogStats) -> None:
    """Print what a log holds, its labels by source, and how far raters agree."""
    console = Console()
    console.print(fold(f"feedback log {stats.log} (schema {stats.schema_version})"))
    table = Table(show_header=False)
    counts = {
        "runs": stats.runs,
        "candidates": f"{stats.candidates}, {stats.chosen} chosen",
        "ratings": stats.ratings,
        "pairs": stats.pairs,
        "guesses real or synthetic": stats.guesses,
        "withdrawn or replaced": stats.replaced,
        "labels by source": _told(stats.by_source),
        "labels by rater": _told(stats.raters),
        "ratings by expert level": _told(stats.by_expert_level),
        "ratings by modality": _told(stats.by_modality),
        "how often each rating": _told(stats.by_rating),
    }
    for name, value in counts.items():
        if value != "":
            table.add_row(name, fold(value))
    console.print(table)
    show_agreement(console, stats.agreement)
    for line in stats.notes:
        console.print(note(line))


def show_import(report: ImportReport) -> None:
    """Print what came of an imported file."""
    console = Console()
    known = f", {report.known} were there already" if report.known else ""
    console.print(fold(f"{report.added} of {report.rows} rows added{known}", "green"))
    for line in report.skipped[:SKIPPED_SHOWN]:
        console.print(fold(f"left out: {line}", "yellow"))
    if len(report.skipped) > SKIPPED_SHOWN:
        more = len(report.skipped) - SKIPPED_SHOWN
        console.print(fold(f"left out: {more} rows more", "yellow"))
    for line in report.notes:
        console.print(note(line))
    show_agreement(console, report.agreement)


def show_collected(report: Collected) -> None:
    """Print what a log was told of a dataset."""
    console = Console()
    known = f", {report.known_runs} tasks were there already" if report.known_runs else ""
    console.print(
        fold(
            f"{report.candidates} images of {report.runs} tasks added{known}: {report.log}", "green"
        )
    )
    if report.missing:
        console.print(note(f"{report.missing} images are gone from {report.dataset}"))


def show_agreement(console: Console, agreement: list[Agreement]) -> None:
    """Print a line for each source and scale, and a table of kappas where raters met."""
    for one in agreement:
        whose = f"{one.source} ratings 1-{one.scale}"
        if one.alpha is None:
            console.print(fold(f"agreement of {whose}: not measurable ({one.why})"))
            continue
        interval = ""
        if one.interval is not None:
            interval = f" [{one.interval[0]:.2f}, {one.interval[1]:.2f}]"
        console.print(
            fold(
                f"agreement of {whose}: Krippendorff's alpha {one.alpha:.2f}{interval} "
                f"(ordinal; {one.raters} raters, {one.shared_images} shared images)"
            )
        )
        if one.pairs:
            table = Table("rater", "rater", "shared images", "quadratic-weighted kappa")
            for pair in one.pairs:
                kappa = "not measurable" if pair.kappa is None else f"{pair.kappa:.2f}"
                table.add_row(*map(fold, (*pair.raters, pair.images, kappa)))
            console.print(table)


def rate_by_keyboard(session: RatingSession) -> None:
    """Show one image's path and prompt after the other and take a key for each.

    Ends when no image is left, on q, on Ctrl-C and at the end of the input; what was rated is in
    the log by then.
    """
    console = Console(stderr=True)
    if session.missing:
        example = session.missing[0].image_path
        text = f"{len(session.missing)} images are no longer there, such as {example}"
        console.print(note(text))
    keys = f"1-{session.scale}  rate (1 worst)    u  undo    s  skip    q  stop"
    console.print(Text(keys, style="dim"))
    while session.current is not None:
        _show(console, session)
        try:
            key = _key()
        except (KeyboardInterrupt, EOFError):
            break
        if key.lower() in END:
            break
        _act(console, session, key.lower())


def _show(console: Console, session: RatingSession) -> None:
    one = session.current
    assert one is not None
    console.print(Text.assemble((f"\n{session.left} left  ", "dim"), one_line(one.prompt)))
    console.print(Text(one_line(one.image_path), style="bold"), soft_wrap=True, highlight=False)


def _act(console: Console, session: RatingSession, key: str) -> None:
    if key in map(str, range(1, session.scale + 1)):
        session.rate(int(key))
        console.print(f"  {key}")
    elif key == "u":
        undone = session.undo()
        told = f"took back {undone.rating}" if undone else "nothing to take back"
        console.print(f"  {told}", style="yellow")
    elif key == "s":
        session.skip()
        console.print("  skipped", style="yellow")
    else:
        console.print(f"  {one_line(key)!r} is no key here", style="yellow")


def _key() -> str:
    """One key from the terminal, or one character, blanks aside, where stdin is none."""
    if sys.stdin.isatty():
        return typer.getchar()
    key = sys.stdin.read(1)
    while key.isspace():
        key = sys.stdin.read(1)
    return key


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())

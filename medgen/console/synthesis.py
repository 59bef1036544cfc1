"""Shows how a dataset is made: progress on stderr, the estimate before and the outcome after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from medgen.console.text import fold, note, one_line, print_paths

if TYPE_CHECKING:
    from medgen.graphs.synthesis import Job, Outcome
    from medgen.graphs.synthesis_engine import Progress as Counted
    from medgen.graphs.synthesis_estimate import Estimate

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_DRAWINGS = 0.5
LISTED = 3


def duration(seconds: float) -> str:
    """Seconds as a person says them: 48 s, 12 min, 3.4 h, 12 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def told(counted: Counted) -> str:
    """Yield, the most frequent reasons and the time to go, in a line."""
    parts = []
    if counted.drawn:
        share = counted.kept / counted.drawn
        parts.append(f"{counted.drawn} drawn, {share:.0%} kept")
    for reason, count in counted.reasons.most_common(LISTED):
        parts.append(f"{reason}: {count}")
    if counted.near_copies:
        parts.append(f"near copies: {counted.near_copies}")
    if counted.quarantined:
        parts.append(f"set aside: {counted.quarantined}")
    if counted.kept_now and counted.seconds:
        parts.append(f"{counted.kept_now / counted.seconds * 3600:.0f} images/h")
    if counted.seconds_left is not None:
        parts.append(f"{duration(counted.seconds_left)} left")
    return "; ".join(parts) or "loading"


class LiveSynthesis:
    """A bar of images kept with what is going on; off a terminal a line each half minute."""

    def __init__(self, visible: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not visible)
        self._bar = Progress(
            TextColumn("images"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
        )
        self._task: TaskID | None = None
        self._shown = 0.0
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def checked(self, job: Job) -> None:
        """Say what will be made, and what the parser warned of."""
        count = len(job.cells)
        kinds = f"{count} combinations" if count else f"{job.checked.prompts} prompts"
        self._console.print(fold(f"{job.wanted:,} images of {kinds}; loading workers"))
        for warning, times in job.checked.warnings.most_common(5):
            self._console.print(note(f"{warning} ({times} prompts)"), highlight=False)

    def progress(self, counted: Counted) -> None:
        """Move the bar, or say a line now and then."""
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_DRAWINGS:
            return
        self._shown = now
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task("", total=counted.wanted)
            self._bar.update(self._task, completed=counted.kept, description=told(counted))
        elif now - self._said > SECONDS_BETWEEN_LINES:
            self._said = now
            line = f"{counted.kept} of {counted.wanted} images; {told(counted)}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def show_outcome(outcome: Outcome) -> None:
    """Print what became of a run."""
    console = Console()
    style = "green" if outcome.kept >= outcome.wanted else "yellow"
    console.print(
        Text.assemble((f"{outcome.kept} of {outcome.wanted} images", style)),
        highlight=False,
    )
    if outcome.drawn:
        rate = outcome.kept_now / outcome.seconds * 3600 if outcome.seconds else 0
        console.print(
            fold(
                f"{outcome.drawn} candidates drawn, {outcome.kept / outcome.drawn:.0%} kept; "
                f"{duration(outcome.seconds)}, {rate:.0f} images/h",
                "dim",
            )
        )
    table = Table(title_justify="left", show_edge=False)
    table.add_column("candidates turned down because", overflow="fold")
    table.add_column("how many", justify="right")
    for reason, count in list(outcome.reasons.items())[:12]:
        table.add_row(fold(reason), str(count))
    if outcome.near_copies:
        table.add_row("near copy of another image", str(outcome.near_copies))
    if table.row_count:
        console.print(table)
    for name, (kept, wanted) in list(outcome.unmet.items())[:10]:
        if name != "table":
            console.print(note(f"{name}: {kept} of {wanted}"), highlight=False)
    for task, error in list(outcome.quarantined.items())[:10]:
        console.print(note(f"{task} was set aside: {one_line(error)[:300]}"), highlight=False)
    if not outcome.complete:
        console.print(note("the hours are over: go on with --resume"), highlight=False)
    print_paths(console, "dataset", [outcome.folder])


def show_estimate(estimate: Estimate) -> None:
    """Print a plan: what would be made, in what time and at what cost."""
    console = Console()
    table = Table(show_edge=False)
    for column in ("modality", "images", "candidates an image", "candidates"):
        table.add_column(column, justify="left" if column == "modality" else "right")
    for part in estimate.parts:
        table.add_row(
            one_line(part.modality),
            f"{part.images:,}",
            f"{part.candidates_an_image:.1f}",
            f"{part.candidates:,}",
        )
    console.print(table)
    console.print(
        fold(
            f"{estimate.images:,} images from {estimate.combinations:,} combinations or prompts; "
            f"{estimate.seconds_a_candidate:.2f} s a candidate, measured just now on one core"
        )
    )
    cost = "" if estimate.cost is None else f", {estimate.cost:,.2f} in all"
    console.print(
        fold(
            f"about {duration(estimate.seconds)} with {estimate.workers} workers "
            f"({estimate.core_hours:,.1f} core hours{cost}), {estimate.gigabytes:,.2f} GB"
        )
    )
    for line in estimate.notes:
        console.print(note(line), highlight=False)
    for warning, times in list(estimate.warnings.items())[:10]:
        console.print(note(f"{warning} ({times} prompts)"), highlight=False)

"""What goes on, on stderr: spinners, steps, counts and bars; plain lines off a terminal.

Told of each step by whoever works; knows nothing of the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.text import Text

from medgen.console.text import fold, note, one_line

if TYPE_CHECKING:
    from medgen.generator.training.progress import Progress as TrainingProgress
    from medgen.records import TraceEvent

DRAWS = "generate"
SECONDS_BETWEEN_COUNTS = 0.5


@contextmanager
def spinner(doing: str, visible: bool) -> Iterator[None]:
    """Show that something is being done, on a terminal's stderr."""
    console = Console(stderr=True, quiet=not (visible and Console(stderr=True).is_terminal))
    with console.status(Text(doing)):
        yield


class LiveSteps:
    """Shows an agent run's steps as they happen, on stderr; a context manager.

    Lines of the reasoning are held back until drawing starts, so that a request which turns out to
    be bad input leaves one line of error and no more; the spinner names the step meanwhile.
    """

    def __init__(self, visible: bool) -> None:
        self.console = Console(stderr=True, quiet=not visible)
        self.clock = time.monotonic()
        self.status: Status = self.console.status("loading")
        self.noted: set[str] = set()
        self.held: list[Text] = []
        self.drawing = False

    def __enter__(self) -> Self:
        self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.status.stop()
        if kind is None:
            self._release()

    def start(self, node: str) -> None:
        """Name the step that is being worked on."""
        self.status.update(Text(one_line(node.replace("_", " "))))
        if node == DRAWS:
            self._release()
            self.drawing = True

    def event(self, event: TraceEvent) -> None:
        """Show one finished step: node, round, seconds, who decided, and new notes."""
        turn = f" (round {event.round})" if event.round is not None else ""
        self.held.append(
            Text.assemble(
                (f"{time.monotonic() - self.clock:6.1f} s  ", "dim"),
                (one_line(event.node.replace("_", " ")), "bold"),
                turn,
                (f"  {event.seconds:.1f} s, by {one_line(event.decided_by)}", "dim"),
            )
        )
        warnings = event.outputs.get("warnings")
        for warning in warnings if isinstance(warnings, list) else []:
            if str(warning) not in self.noted:
                self.noted.add(str(warning))
                self.held.append(note(str(warning)))
        if self.drawing:
            self._release()

    def _release(self) -> None:
        for line in self.held:
            self.console.print(line, highlight=False)
        self.held.clear()


class CountedSteps:
    """A progress bar a step on stderr, with what is done, how fast and how long yet; a context.

    On no terminal one line a step and nothing in between.
    """

    def __init__(self, visible: bool = True) -> None:
        self._console = Console(stderr=True)
        self._visible = visible
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bars.stop()

    def progress(self, step: str, done: int, total: int) -> None:
        """Told by whatever works: the step's name, what is done, and of how much (0: not known)."""
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total or None)
            if self._visible and not self._console.is_terminal:
                self._console.print(Text(step))
        self._bars.update(self._tasks[step], completed=done, total=total or None)


class RowCounter:
    """Counts the rows of a long job on a terminal's stderr, and says at the end how it went."""

    def __init__(self, done: str) -> None:
        self._done, self.rows, self.failed = done, 0, 0
        self._console = Console(stderr=True)
        self._status = Status("", console=self._console)
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not sys.stdout.isatty():
            self._status.start()
        return self

    def count(self, failed: bool = False) -> None:
        """One more row."""
        self.failed += failed
        self.count_to(self.rows + 1)

    def count_to(self, rows: int) -> None:
        """So many rows by now."""
        self.rows = rows
        now = time.monotonic()
        if now - self._shown > SECONDS_BETWEEN_COUNTS:
            self._shown = now
            self._status.update(f"{self._said()}, {rows / (now - self._started):.0f} a second")

    def _said(self) -> str:
        failed = f", {self.failed} not: see their error" if self.failed else ""
        return f"{self.rows - self.failed} of {self.rows} rows {self._done}{failed}"

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self._console.print(self._said(), highlight=False)


class Bars:
    """Bars of a long job's tasks on stderr, with the time to go; plain lines off a terminal."""

    def __init__(self, visible: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not visible)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a task are done."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(one_line(task), total=total)
            if not self._console.is_terminal:
                self._console.print(f"{one_line(task)}: {total}", highlight=False, markup=False)
        self._progress.update(self._tasks[task], completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class TrainingBar:
    """A training run on stderr: a bar with loss, images/s and time to go; lines off a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = self._console.is_terminal
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._bar,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(fold(text), soft_wrap=True)

    def step(self, progress: TrainingProgress) -> None:
        """Move the bar; print what was measured, and off a terminal each logged step."""
        if progress.held_out is not None or (progress.logged and not self._bar):
            self.say(progress.line())
        if not self._bar:
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=progress.steps)
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        told = (
            f"loss {progress.loss:.4f}, {progress.images_per_second:.1f} images/s, "
            f"{minutes}:{seconds:02d} left"
        )
        self._progress.update(self._task, completed=progress.step, description=told)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

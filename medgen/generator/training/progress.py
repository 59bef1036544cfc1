"""How a training run tells of itself: lines, a CSV log, and whatever a caller shows instead."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medgen.data.images import write_atomic

COLUMNS = ("step", "loss", "held_out", "rate", "images_per_second")


@dataclass(frozen=True)
class Progress:
    """The state of a run after a step.

    `loss` is the mean since the last logged step; `held_out` is null where it was not measured.
    """

    step: int
    steps: int
    loss: float
    rate: float
    images_per_second: float
    seconds_left: float
    logged: bool = False
    held_out: float | None = None

    def line(self) -> str:
        """One line for a log."""
        minutes, seconds = divmod(round(self.seconds_left), 60)
        known = "" if self.held_out is None else f", held-out loss {self.held_out:.4f}"
        return (
            f"step {self.step} of {self.steps}: loss {self.loss:.4f}{known}, "
            f"{self.images_per_second:.1f} images/s, {minutes}:{seconds:02d} left"
        )


class Reporter(Protocol):
    """Where a run tells of itself."""

    def say(self, text: str) -> None:
        """A line of information."""
        ...

    def step(self, progress: Progress) -> None:
        """The state after each step."""
        ...


class LineReporter:
    """Prints a line for each logged step."""

    def say(self, text: str) -> None:
        """Print it at once."""
        print(text, flush=True)

    def step(self, progress: Progress) -> None:
        """Print logged steps."""
        if progress.logged:
            print(progress.line(), flush=True)


class TrainingLog:
    """`log.csv` of a run; a resumed run first drops what came after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        rows = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(path, buffer.getvalue())

    def add(self, progress: Progress) -> None:
        """Append a logged step."""
        known = "" if progress.held_out is None else f"{progress.held_out:.6f}"
        with self.path.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerow(
                [
                    progress.step,
                    f"{progress.loss:.6f}",
                    known,
                    f"{progress.rate:.3e}",
                    f"{progress.images_per_second:.2f}",
                ]
            )

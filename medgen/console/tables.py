"""Shows what a table of images holds, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from medgen.console.text import fold

if TYPE_CHECKING:
    from medgen.data.check import TableReport


def show_table_report(report: TableReport) -> None:
    """Print what is in a table, then what is wrong with it."""
    console = Console()
    splits = sorted({s for by in report.labels.values() for c in by.values() for s in c})
    table = Table()
    for heading in ("modality", "label", *(split or "images" for split in splits)):
        table.add_column(heading, justify="left" if heading in ("modality", "label") else "right")
    for modal, labels in report.labels.items():
        for label, counts in labels.items():
            cells = [str(counts.get(split, 0)) for split in splits]
            table.add_row(fold(modal), fold(label or "(none)"), *cells)
    console.print(table)
    for note in report.notes:
        console.print(fold(note, "yellow"))
    for problem in report.problems:
        console.print(fold(f"{problem.kind}: {problem.text}"))
    told = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    console.print(
        fold(f"{report.rows} rows: {told or 'no problem found'}", "red" if told else "green")
    )

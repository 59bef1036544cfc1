"""Shows what a dataset holds, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from medgen.console.text import fold, note, one_line

if TYPE_CHECKING:
    from medgen.data.dataset_check import DatasetReport
    from medgen.data.dataset_figures import DatasetStats
    from medgen.data.dataset_merge import Merged
    from medgen.data.dataset_split import SplitReport
    from medgen.data.exports.export import Exported

MOST_LINES = 12


def show_stats(stats: DatasetStats) -> None:
    """Print counts, yields, balance, reasons and distances."""
    console = Console()
    table = Table()
    for heading in ("modality", "label", "tasks", "drawn", "kept", "verified", "yield"):
        table.add_column(heading, justify="left" if heading in ("modality", "label") else "right")
    for cell in stats.cells:
        numbers = [str(n) for n in (cell.tasks, cell.candidates, cell.kept, cell.verified)]
        numbers.append(f"{cell.share:.0%}")
        table.add_row(fold(cell.modality), fold(cell.label), *numbers)
    console.print(table)
    for name, counts in stats.counts.items():
        told = ", ".join(f"{value} {count}" for value, count in list(counts.items())[:MOST_LINES])
        console.print(fold(f"{name}: {told}"))
    for modality, balance in stats.balance.items():
        even = "" if balance.evenness is None else f", evenness {balance.evenness:.2f}"
        console.print(
            fold(
                f"{modality}: {balance.labels} labels of {balance.smallest} to {balance.largest} "
                f"images{even}"
            )
        )
    for modality, near in stats.nearness.items():
        share = (
            ""
            if near.nearer_than_real is None
            else f"; {near.nearer_than_real:.1%} nearer than 95 % of real ones"
        )
        console.print(
            fold(
                f"{modality}: nearest training image at {near.closest:.3f}, median "
                f"{near.median:.3f}{share}"
            )
        )
    for reason, count in list(stats.rejections.items())[:MOST_LINES]:
        console.print(fold(f"rejected {count}: {reason}", "yellow"))
    console.print(
        fold(
            f"{stats.images} images of {stats.tasks} tasks, {stats.candidates} drawn, "
            f"{stats.rejected} rejected ({stats.unjudged} not measurable)",
            "green",
        )
    )


def show_export(exported: Exported) -> None:
    """Print what was written where."""
    console = Console()
    told = ", ".join(f"{split} {count}" for split, count in exported.splits.items())
    console.print(fold(f"{exported.images} images as {exported.format} ({told})", "green"))
    _path(console, exported.out)


def show_split(report: SplitReport) -> None:
    """Print how many images of each label are in which part."""
    console = Console()
    table = Table()
    table.add_column("label")
    for name in report.shares:
        table.add_column(name, justify="right")
    for label, counts in report.labels.items():
        table.add_row(fold(label), *(str(counts[name]) for name in report.shares))
    console.print(table)
    for line in report.notes:
        console.print(note(line))
    told = ", ".join(f"{name} {count}" for name, count in report.counts.items())
    console.print(fold(f"{report.groups} groups: {told}", "green"))
    _path(console, report.file)


def show_merge(merged: Merged) -> None:
    """Print what was merged where."""
    console = Console()
    for line in merged.notes:
        console.print(note(line))
    again = f", {merged.repeated} left out as copies" if merged.repeated else ""
    console.print(
        fold(
            f"{merged.images} images and {merged.rejected} rejected ones of "
            f"{len(merged.datasets)} datasets{again}",
            "green",
        )
    )
    _path(console, merged.out)


def show_check(report: DatasetReport) -> None:
    """Print what is wrong with a dataset, or that nothing is."""
    console = Console()
    for fault in [*report.faults, *(report.changed or [])]:
        console.print(fold(f"{fault.kind}: {fault.text}"))
    for fault in report.alike:
        console.print(note(f"{fault.kind}: {fault.text}"))
    for line in report.notes:
        console.print(note(line))
    told = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    again = "" if report.measured is None else f", {report.measured} measured again"
    console.print(
        fold(
            f"{report.rows} rows, {report.images} images{again}: {told or 'no fault found'}",
            "red" if told else "green",
        )
    )


def _path(console: Console, path: str) -> None:
    # Not wrapped: a path is there to be copied.
    console.print(one_line(path), soft_wrap=True, highlight=False, markup=False)

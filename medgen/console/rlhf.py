"""What a person sees of learning from feedback: a round's changes, the adapters in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from medgen.console.text import fold, one_line

if TYPE_CHECKING:
    from medgen.generator.promotion import PromotionStatus
    from medgen.graphs.rlhf_report import RoundReport


def show_round(report: RoundReport) -> None:
    """Print the changes over all seeds, and where the report lies."""
    console = Console()
    name = list(report.changes)[-1]
    table = Table(title=f"before and after, {name}")
    for column in ("modality", "figure", "before", "after", "change (95 %)"):
        table.add_column(column, justify="left" if column in ("modality", "figure") else "right")
    for one in report.changes[name]:
        table.add_row(
            one_line(one.modality),
            f"{one.metric} ({'lower' if one.better == 'lower' else 'higher'} is better)",
            f"{one.before:.3f}",
            f"{one.after:.3f}",
            f"{one.change:+.3f} ({one.low:+.3f} to {one.high:+.3f})",
        )
    console.print(table)
    for seed, folder in report.folders.items():
        console.print(fold(f"seed {seed}: adapter {report.adapters[seed].id} in {folder}"))
    for note in report.notes:
        console.print(fold(f"note: {note}"))
    console.print(fold(f"report: {report.out}/report/report.md"))
    console.print(fold("to draw with an adapter: medgen rlhf promote FOLDER"))


def show_promotions(status: PromotionStatus) -> None:
    """Print which adapter draws and what was promoted."""
    console = Console()
    now = f"adapter {status.using} draws" if status.using else "no adapter draws"
    console.print(fold(f"{now} over the weights {status.base}: {status.why}"))
    for one in status.promotions:
        console.print(fold(f"{one.promoted}  {one.adapter}  {one.folder}"))

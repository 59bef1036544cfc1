"""Shows an evaluation: a table a suite and scorer, with intervals and the floor beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from medgen.console.text import fold, print_paths

if TYPE_CHECKING:
    from medgen.evaluation.report import Evaluation


def show_evaluation(evaluation: Evaluation, page: str) -> None:
    """Print an evaluation's figures, a table a scorer, its warnings and the report's path."""
    console = Console()
    for suite in evaluation.suites:
        outcome = evaluation.outcomes[suite]
        for scorer in dict.fromkeys(figure.scorer for figure in outcome.figures):
            table = Table(title=fold(f"{suite} by {scorer}"), title_justify="left")
            for heading in ("metric", "scope", "synthetic", "floor", "n"):
                table.add_column(heading)
            for one in outcome.figures:
                if one.scorer == scorer:
                    better = {"lower": " ↓", "higher": " ↑", None: ""}[one.better]
                    table.add_row(
                        fold(one.metric + better),
                        fold(" · ".join(part for part in (one.scope, one.group) if part)),
                        fold(_interval(one.value, one.low, one.high) or one.note),
                        fold(_interval(one.floor, one.floor_low, one.floor_high)),
                        str(one.n),
                    )
            console.print(table)
        for warning in outcome.warnings:
            console.print(fold(f"warning: {warning}", "yellow"))
    for warning in evaluation.warnings:
        console.print(fold(f"warning: {warning}", "yellow"))
    print_paths(console, "report", [page])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:.4g}"
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"

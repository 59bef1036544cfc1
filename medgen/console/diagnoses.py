"""Shows the doctor's diagnosis, and what to do about what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medgen.console.text import fold, one_line

if TYPE_CHECKING:
    from medgen.doctor import Diagnosis

STATE_STYLES = {"ok": "green", "missing": "yellow", "broken": "red"}


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the doctor's table, then what to do about what is missing."""
    console = Console()
    table = Table(show_lines=False)
    for column in ("part", "state", "what was found"):
        table.add_column(column, overflow="fold")
    for part in diagnosis.parts:
        table.add_row(
            fold(part.name), Text(part.state, style=STATE_STYLES[part.state]), fold(part.detail)
        )
    console.print(table)
    for part in diagnosis.parts:
        if part.remedy:
            console.print(Text.assemble((f"{one_line(part.name)}: ", "yellow"), fold(part.remedy)))
    console.print(
        Text("the default path works", style="bold green")
        if diagnosis.ok
        else Text("the default path does not work yet", style="bold red")
    )

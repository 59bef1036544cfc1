"""Shows what the knowledge store knows: facts with their sources, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medgen.console.text import fold

if TYPE_CHECKING:
    from medgen.records import Fact


def show_facts(facts: Sequence[Fact]) -> None:
    """Print facts, best first: score, id, text, source."""
    console = Console()
    if not facts:
        console.print(Text("nothing relevant is known", style="yellow"))
        return
    table = Table()
    for column in ("score", "id", "fact", "source"):
        table.add_column(column, overflow="fold")
    for fact in facts:
        table.add_row(f"{fact.score:.2f}", fold(fact.id), fold(fact.text), fold(fact.source))
    console.print(table)


def show_counts(folder: str, counts: dict[str, int]) -> None:
    """Print what a knowledge store holds, a line a kind."""
    console = Console()
    console.print(fold(folder, style="dim"))
    table = Table(show_header=False)
    for name, number in counts.items():
        table.add_row(fold(name), f"{number:,}")
    console.print(table)

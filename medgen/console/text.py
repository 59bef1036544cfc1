"""Text fit for a terminal: what users and models wrote is shown, never obeyed as markup or control.

Knows nothing of records.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text


def one_line(text: object) -> str:
    """Text fit for one terminal line: white space joined, control characters shown, not obeyed."""
    joined = " ".join(str(text).split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in joined
    )


def fold(content: object, style: str = "") -> Text:
    """One line of text that wraps anywhere rather than being cut."""
    return Text(one_line(content), style=style, overflow="fold")


def note(warning: str) -> Text:
    """A warning, marked as a note."""
    return Text.assemble(("note: ", "yellow"), fold(warning))


def print_paths(console: Console, label: str, paths: Sequence[str]) -> None:
    """Print paths, a labelled line each."""
    # Not wrapped: a path is there to be copied.
    for path in paths:
        console.print(Text(f"{label}  {one_line(path)}"), soft_wrap=True, highlight=False)

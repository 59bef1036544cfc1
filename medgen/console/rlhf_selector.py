"""Shows a trained selector beside its baselines, and a prompt policy's estimates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from medgen.console.text import fold, note, print_paths

if TYPE_CHECKING:
    from medgen.feedback.prompt_policy import PromptPolicyCard
    from medgen.feedback.selector_card import Estimate, SelectorCard


def show_selector(card: SelectorCard, folder: Path) -> None:
    """Print what was learned from, the contests on held-out labels, and whether it is used."""
    console = Console()
    sources = ", ".join(f"{count} {source}" for source, count in card.trained_on.items())
    console.print(
        fold(f"{card.candidates} candidates of {card.prompts} prompts; preferences: {sources}")
    )
    table = Table(title="share of held-out preferences agreed with")
    names = list(card.contests[0].accuracy) if card.contests else []
    for column in ("labels by", "of", "how many", *names):
        table.add_column(column, overflow="fold")
    for one in card.contests:
        figures = [_interval(one.accuracy[names[0]])]
        figures += [f"{one.accuracy[name].value:.3f}" for name in names[1:]]
        judge = f"{one.judge} ({one.source})"
        table.add_row(fold(judge), fold(one.scope), str(one.preferences), *figures)
    if card.contests:
        console.print(table)
    for ablation in card.ablations:
        console.print(fold(f"with {', '.join(ablation.parts)}: {_interval(ablation.accuracy)}"))
    if card.calibration_error is not None:
        console.print(f"calibration error of its held-out probabilities: {card.calibration_error}")
    for line in card.notes:
        console.print(note(line))
    word, style = ("usable", "green") if card.usable else ("not usable", "yellow")
    console.print(fold(f"{word}: {card.why}", style))
    print_paths(console, "selector", [str(folder.resolve())])


def _interval(one: Estimate) -> str:
    if one.low == one.high:
        return f"{one.value:.3f}"
    return f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})"


def show_prompt_policy(card: PromptPolicyCard, path: Path) -> None:
    """Print what a policy was learned from and what it is estimated to gain."""
    console = Console()
    console.print(
        fold(f"{card.trials} drawn recipes of {card.prompts} prompts; gain: {card.measure}")
    )
    table = Table(title="mean gain of a refinement (95 % interval by prompt)")
    for column in ("policy", "IPS", "SNIPS", "doubly robust", "over the log", "trials' worth"):
        table.add_column(column, overflow="fold")
    if card.logged is not None:
        table.add_row("as logged", _span(card.logged), "", "", "", str(card.trials))
    rows = {"learned": card.estimate, **{f"always {k}": v for k, v in card.fixed.items()}}
    for name, one in rows.items():
        if one is not None:
            spans = (_span(one.ips), _span(one.snips), _span(one.dr), _span(one.gain))
            table.add_row(fold(name), *spans, f"{one.effective:.0f}")
    console.print(table)
    for line in card.notes:
        console.print(note(line))
    print_paths(console, "prompt policy", [str(path.resolve())])


def _span(figure: tuple[float, float, float]) -> str:
    return f"{figure[0]:+.3f} ({figure[1]:+.3f} to {figure[2]:+.3f})"

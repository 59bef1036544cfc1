"""Shows what was drawn and what was measured on it: runs, drawings, single images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medgen.console.text import fold, note, one_line, print_paths

if TYPE_CHECKING:
    from medgen.records import Drawing, Finding, ImageResult, Measurement, Run, Verification

VERDICT_STYLES = {"confirmed": "green", "contradicted": "red", "abstain": "yellow"}


def show_run(run: Run) -> None:
    """Print a run: findings as asked and measured, the control beside the result, paths."""
    console = Console()
    for result in run.results:
        table = _beside(result)
        if len(run.results) > 1:
            table.title = Text(one_line(result.image))
        if result.findings:
            console.print(table)
        console.print(
            Text.assemble(
                _accepted(result.accepted),
                "; the control (your prompt, unrefined, same noise): ",
                _accepted(result.control.accepted),
            )
        )
        print_paths(console, "image  ", [result.image])
        print_paths(console, "control", [result.control.image])
    print_paths(console, "trace  ", [run.trace])
    console.print(
        fold(
            f"run {run.run_id}: {run.rounds} round(s), {run.candidates} candidate(s), "
            f"{run.seconds:.1f} s",
            "dim",
        )
    )


def _beside(result: ImageResult) -> Table:
    from medgen.graphs.outcome import phrase

    control = {phrase(finding): finding for finding in result.control.findings}
    table = Table(title_justify="left")
    for column in ("finding", "measured", "verdict", "control measured", "control verdict"):
        table.add_column(column, overflow="fold")
    for finding in result.findings:
        beside = control.get(phrase(finding))
        table.add_row(
            fold(phrase(finding)),
            _readings(finding),
            _verdict(finding),
            _readings(beside),
            _verdict(beside),
        )
    return table


def show_drawing(drawing: Drawing) -> None:
    """Print what was drawn: the prompt that the generator was given, and paths."""
    console = Console()
    told = drawing.conditioning
    console.print(Text.assemble(("drawn from  ", "dim"), fold(told.prompt)))
    if told.structured:
        pairs = ", ".join(f"{key}={value}" for key, value in told.structured.items())
        console.print(Text.assemble(("structured  ", "dim"), fold(pairs)))
    console.print(
        fold(
            f"{drawing.generator} ({drawing.fingerprint[:12]}), seed {told.seed}, "
            f"{drawing.seconds:.1f} s, not verified",
            "dim",
        )
    )
    for warning in drawing.warnings:
        console.print(note(warning))
    print_paths(console, "image", drawing.images)


def show_verification(critique: Verification) -> None:
    """Print what was measured on one image."""
    from medgen.graphs.outcome import phrase

    console = Console()
    if critique.error is not None:
        name = (one_line(critique.path), "bold")
        console.print(Text.assemble(name, "  ", (critique.error, "red")), soft_wrap=True)
        return
    kind = "unknown modality"
    if critique.modality is not None:
        kind = f"{critique.modality.predicted} ({critique.modality.confidence:.0%})"
    name = (one_line(critique.path), "bold")
    console.print(Text.assemble(name, "  ", fold(kind)), soft_wrap=True)
    for finding in critique.findings:
        console.print(
            Text.assemble(
                "  ", fold(phrase(finding)), ": ", _verdict(finding), "  ", _readings(finding)
            )
        )
    if critique.quality is not None:
        problems = ", ".join(critique.quality.problems) or "no problems"
        console.print(fold(f"  quality {critique.quality.score:.2f}, {problems}"))
    if critique.nearest_training is not None:
        near = critique.nearest_training
        console.print(
            fold(
                f"  nearest training image at distance {near.distance:.3g}, "
                f"percentile {near.percentile:.0f} of held-out images"
            )
        )
    if critique.anatomy:
        read = "; ".join(_measured(one, "real images") for one in critique.anatomy)
        console.print(fold("  " + read, "dim"))
    for reason in critique.rejections:
        console.print(Text.assemble(("  rejected: ", "red"), fold(reason)))
    for correction in critique.corrections:
        console.print(Text.assemble(("  to correct: ", "yellow"), fold(correction.text)))
    for line in critique.disagreements:
        console.print(Text.assemble(("  ", ""), (line, "yellow")))
    for reason in critique.abstentions:
        console.print(fold(f"  not judged: {reason}", "dim"))
    if critique.overlay is not None:
        print_paths(console, "  overlay", [critique.overlay])


def _accepted(accepted: bool | None) -> Text:
    if accepted:
        return Text("accepted", style="bold green")
    if accepted is None:
        return Text("not accepted: nothing could be measured", style="bold yellow")
    return Text("not accepted", style="bold red")


def _verdict(finding: Finding | None) -> Text:
    if finding is None or finding.verdict is None:
        return Text("not measured", style="dim")
    return Text(finding.verdict, style=VERDICT_STYLES[finding.verdict])


def _readings(finding: Finding | None) -> Text:
    if finding is None or not finding.measurements:
        return Text("-", style="dim")
    return fold("; ".join(_measured(measurement) for measurement in finding.measurements))


def _measured(measurement: Measurement, whose: str = "asked") -> str:
    from medgen.graphs.outcome import expected_range

    line = f"{measurement.name} {_number(measurement.value)} {measurement.unit}".rstrip()
    asked = expected_range(measurement)
    return f"{line} ({whose} {asked})" if asked else line


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"

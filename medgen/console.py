"""What a person sees in the terminal: steps as they happen, then tables of what came out.

Progress goes to stderr and answers to stdout; both degrade to plain lines when they are no
terminal. Takes records and prints them; knows nothing of how they came about. Text from users and
models is never read as markup or as control characters.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import TaskID

    from medgen.data.check import TableReport
    from medgen.doctor import Diagnosis
    from medgen.evaluation.report import Evaluation
    from medgen.generator.training.progress import Progress as TrainingProgress
    from medgen.records import (
        Critique,
        Drawing,
        Fact,
        Finding,
        ImageResult,
        Measurement,
        MeasurementTarget,
        Plan,
        Run,
        TraceEvent,
    )

VERDICT_STYLES = {"confirmed": "green", "contradicted": "red", "abstain": "yellow"}
DRAWS = "generate"
NO_CODE = "no id known"
SECONDS_BETWEEN_COUNTS = 0.5
STATE_STYLES = {"ok": "green", "missing": "yellow", "broken": "red"}


def one_line(text: object) -> str:
    """Text fit for one terminal line: white space joined, control characters shown, not obeyed."""
    joined = " ".join(str(text).split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in joined
    )


def _text(content: object, style: str = "") -> Text:
    return Text(one_line(content), style=style, overflow="fold")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _measured(measurement: Measurement) -> str:
    from medgen.graphs.outcome import expected_range

    line = f"{measurement.name} {_number(measurement.value)} {measurement.unit}".rstrip()
    asked = expected_range(measurement)
    return f"{line} (asked {asked})" if asked else line


def _note(warning: str) -> Text:
    return Text.assemble(("note: ", "yellow"), _text(warning))


def _verdict(finding: Finding | None) -> Text:
    if finding is None or finding.verdict is None:
        return Text("not measured", style="dim")
    return Text(finding.verdict, style=VERDICT_STYLES[finding.verdict])


def _readings(finding: Finding | None) -> Text:
    if finding is None or not finding.measurements:
        return Text("-", style="dim")
    return _text("; ".join(_measured(measurement) for measurement in finding.measurements))


def _accepted(accepted: bool | None) -> Text:
    if accepted:
        return Text("accepted", style="bold green")
    if accepted is None:
        return Text("not accepted: nothing could be measured", style="bold yellow")
    return Text("not accepted", style="bold red")


class CountedSteps:
    """A progress bar a step on stderr, with what is done, how fast and how long yet; a context.

    On no terminal one line a step and nothing in between.
    """

    def __init__(self, visible: bool = True) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True)
        self._visible = visible
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (visible and self._console.is_terminal),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bars.stop()

    def progress(self, step: str, done: int, total: int) -> None:
        """Told by whatever works: the step's name, what is done, and of how much (0: not known)."""
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total or None)
            if self._visible and not self._console.is_terminal:
                self._console.print(Text(step))
        self._bars.update(self._tasks[step], completed=done, total=total or None)


class LiveSteps:
    """Shows an agent run's steps as they happen, on stderr; a context manager.

    Lines of the reasoning are held back until drawing starts, so that a request which turns out to
    be bad input leaves one line of error and no more; the spinner names the step meanwhile.
    """

    def __init__(self, visible: bool) -> None:
        self.console = Console(stderr=True, quiet=not visible)
        self.clock = time.monotonic()
        self.status: Status = self.console.status("loading")
        self.noted: set[str] = set()
        self.held: list[Text] = []
        self.drawing = False

    def __enter__(self) -> Self:
        self.status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.status.stop()
        if kind is None:
            self._release()

    def start(self, node: str) -> None:
        """Name the step that is being worked on."""
        self.status.update(Text(one_line(node.replace("_", " "))))
        if node == DRAWS:
            self._release()
            self.drawing = True

    def event(self, event: TraceEvent) -> None:
        """Show one finished step: node, round, seconds, who decided, and new notes."""
        turn = f" (round {event.round})" if event.round is not None else ""
        self.held.append(
            Text.assemble(
                (f"{time.monotonic() - self.clock:6.1f} s  ", "dim"),
                (one_line(event.node.replace("_", " ")), "bold"),
                turn,
                (f"  {event.seconds:.1f} s, by {one_line(event.decided_by)}", "dim"),
            )
        )
        warnings = event.outputs.get("warnings")
        for warning in warnings if isinstance(warnings, list) else []:
            if str(warning) not in self.noted:
                self.noted.add(str(warning))
                self.held.append(_note(str(warning)))
        if self.drawing:
            self._release()

    def _release(self) -> None:
        for line in self.held:
            self.console.print(line, highlight=False)
        self.held.clear()


@contextmanager
def spinner(doing: str, visible: bool) -> Iterator[None]:
    """Show that something is being done, on a terminal's stderr."""
    console = Console(stderr=True, quiet=not (visible and Console(stderr=True).is_terminal))
    with console.status(Text(doing)):
        yield


class RowCounter:
    """Counts the rows of a long job on a terminal's stderr, and says at the end how it went."""

    def __init__(self, done: str) -> None:
        self._done, self.rows, self.failed = done, 0, 0
        self._console = Console(stderr=True)
        self._status = Status("", console=self._console)
        self._started = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not sys.stdout.isatty():
            self._status.start()
        return self

    def count(self, failed: bool = False) -> None:
        """One more row."""
        self.failed += failed
        self.count_to(self.rows + 1)

    def count_to(self, rows: int) -> None:
        """So many rows by now."""
        self.rows = rows
        now = time.monotonic()
        if now - self._shown > SECONDS_BETWEEN_COUNTS:
            self._shown = now
            self._status.update(f"{self._said()}, {rows / (now - self._started):.0f} a second")

    def _said(self) -> str:
        failed = f", {self.failed} not: see their error" if self.failed else ""
        return f"{self.rows - self.failed} of {self.rows} rows {self._done}{failed}"

    def __exit__(self, *_: object) -> None:
        self._status.stop()
        self._console.print(self._said(), highlight=False)


class Bars:
    """Bars of a long job's tasks on stderr, with the time to go; plain lines off a terminal."""

    def __init__(self, visible: bool = True) -> None:
        self._console = Console(stderr=True, quiet=not visible)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show that `done` of `total` of a task are done."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(one_line(task), total=total)
            if not self._console.is_terminal:
                self._console.print(f"{one_line(task)}: {total}", highlight=False, markup=False)
        self._progress.update(self._tasks[task], completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class TrainingBar:
    """A training run on stderr: a bar with loss, images/s and time to go; lines off a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = self._console.is_terminal
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._bar,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(_text(text), soft_wrap=True)

    def step(self, progress: TrainingProgress) -> None:
        """Move the bar; print what was measured, and off a terminal each logged step."""
        if progress.held_out is not None or (progress.logged and not self._bar):
            self.say(progress.line())
        if not self._bar:
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=progress.steps)
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        told = (
            f"loss {progress.loss:.4f}, {progress.images_per_second:.1f} images/s, "
            f"{minutes}:{seconds:02d} left"
        )
        self._progress.update(self._task, completed=progress.step, description=told)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


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
            table.add_row(_text(modal), _text(label or "(none)"), *cells)
    console.print(table)
    for note in report.notes:
        console.print(_text(note, "yellow"))
    for problem in report.problems:
        console.print(_text(f"{problem.kind}: {problem.text}"))
    told = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    console.print(
        _text(f"{report.rows} rows: {told or 'no problem found'}", "red" if told else "green")
    )


def show_evaluation(evaluation: Evaluation, page: str) -> None:
    """Print an evaluation's figures, a table a scorer, its warnings and the report's path."""
    console = Console()
    for suite in evaluation.suites:
        outcome = evaluation.outcomes[suite]
        for scorer in dict.fromkeys(figure.scorer for figure in outcome.figures):
            table = Table(title=_text(f"{suite} by {scorer}"), title_justify="left")
            for heading in ("metric", "scope", "synthetic", "floor", "n"):
                table.add_column(heading)
            for one in outcome.figures:
                if one.scorer == scorer:
                    better = {"lower": " ↓", "higher": " ↑", None: ""}[one.better]
                    table.add_row(
                        _text(one.metric + better),
                        _text(" · ".join(part for part in (one.scope, one.group) if part)),
                        _text(_interval(one.value, one.low, one.high) or one.note),
                        _text(_interval(one.floor, one.floor_low, one.floor_high)),
                        str(one.n),
                    )
            console.print(table)
        for warning in outcome.warnings:
            console.print(_text(f"warning: {warning}", "yellow"))
    for warning in evaluation.warnings:
        console.print(_text(f"warning: {warning}", "yellow"))
    _paths(console, "report", [page])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:.4g}"
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"


def _paths(console: Console, label: str, paths: Sequence[str]) -> None:
    # Not wrapped: a path is there to be copied.
    for path in paths:
        console.print(Text(f"{label}  {one_line(path)}"), soft_wrap=True, highlight=False)


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
        _paths(console, "image  ", [result.image])
        _paths(console, "control", [result.control.image])
    _paths(console, "trace  ", [run.trace])
    console.print(
        _text(
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
            _text(phrase(finding)),
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
    console.print(Text.assemble(("drawn from  ", "dim"), _text(told.prompt)))
    if told.structured:
        pairs = ", ".join(f"{key}={value}" for key, value in told.structured.items())
        console.print(Text.assemble(("structured  ", "dim"), _text(pairs)))
    console.print(
        _text(
            f"{drawing.generator} ({drawing.fingerprint[:12]}), seed {told.seed}, "
            f"{drawing.seconds:.1f} s, not verified",
            "dim",
        )
    )
    for warning in drawing.warnings:
        console.print(_note(warning))
    _paths(console, "image", drawing.images)


def show_plan(plan: Plan) -> None:
    """Print a plan: what was understood, what will be drawn, and what will be measured."""
    from medgen.graphs.outcome import phrase

    console = Console()
    console.print(Text.assemble(("modality  ", "dim"), _text(plan.modality)))
    table = Table()
    for column in ("finding", "code", "looks like", "measured by"):
        table.add_column(column, overflow="fold")
    for finding in plan.findings:
        signs = [sign.text for sign in plan.signs if sign.finding == finding.finding]
        targets = [one for one in plan.measurements if one.finding == finding.finding]
        table.add_row(
            _text(phrase(finding)),
            _text(finding.code or NO_CODE),
            _text("; ".join(signs) or "-"),
            _text("; ".join(_target(one) for one in targets) or "-"),
        )
    if plan.findings:
        console.print(table)
    for region in plan.regions:
        where = f"{region.side} {region.name}" if region.side else region.name
        console.print(
            Text.assemble(("where  ", "dim"), _text(where), (f"  {region.code or NO_CODE}", "dim"))
        )
    if plan.report is not None:
        for section in ("history", "technique", "findings", "impression"):
            body = getattr(plan.report, section)
            console.print(Text.assemble((f"{section.capitalize()}: ", "bold"), _text(body)))
    for words in plan.not_drawable:
        console.print(Text.assemble(("not drawable: ", "yellow"), _text(words)))
    for warning in plan.warnings:
        console.print(_note(warning))
    for note in plan.notes:
        console.print(_text(f"taken for granted: {note}", "dim"))
    for role, who in plan.decided_by.items():
        if who != "rules":
            console.print(_text(f"{role} by {one_line(who)}", "dim"))
    if plan.cited:
        facts = ", ".join(f"[{number}] {fact}" for number, fact in enumerate(plan.cited, start=1))
        console.print(_text(f"facts used: {facts}", "dim"))


def _target(target: MeasurementTarget) -> str:
    from medgen.graphs.outcome import expected_range
    from medgen.records import Measurement

    asked = Measurement(name=target.name, value=0, expected=target.expected, check="")
    return f"{target.name} {expected_range(asked)} {target.unit}".rstrip()


def show_critique(image: str, critique: Critique) -> None:
    """Print what was measured on one image."""
    from medgen.graphs.outcome import phrase

    console = Console()
    kind = critique.modality or "unknown modality"
    if critique.modality_confidence is not None:
        kind += f" ({critique.modality_confidence:.0%})"
    console.print(Text.assemble((one_line(image), "bold"), "  ", _text(kind)), soft_wrap=True)
    for finding in critique.findings:
        console.print(
            Text.assemble(
                "  ", _text(phrase(finding)), ": ", _verdict(finding), "  ", _readings(finding)
            )
        )
    if critique.quality is not None:
        problems = ", ".join(critique.quality.problems) or "no problems"
        console.print(_text(f"  quality {critique.quality.score:.2f}, {problems}"))
    if critique.nearest_training is not None:
        near = critique.nearest_training
        console.print(
            _text(
                f"  nearest training image at distance {near.distance:.3g}, "
                f"percentile {near.percentile:.0f} of held-out images"
            )
        )
    for reason in critique.rejections:
        console.print(Text.assemble(("  rejected: ", "red"), _text(reason)))
    for correction in critique.corrections:
        console.print(Text.assemble(("  to correct: ", "yellow"), _text(correction.text)))
    for reason in critique.abstentions:
        console.print(_text(f"  not judged: {reason}", "dim"))


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
        table.add_row(f"{fact.score:.2f}", _text(fact.id), _text(fact.text), _text(fact.source))
    console.print(table)


def show_counts(folder: str, counts: dict[str, int]) -> None:
    """Print what a knowledge store holds, a line a kind."""
    console = Console()
    console.print(_text(folder, style="dim"))
    table = Table(show_header=False)
    for name, number in counts.items():
        table.add_row(_text(name), f"{number:,}")
    console.print(table)


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the doctor's table, then what to do about what is missing."""
    console = Console()
    table = Table(show_lines=False)
    for column in ("part", "state", "what was found"):
        table.add_column(column, overflow="fold")
    for part in diagnosis.parts:
        table.add_row(
            _text(part.name), Text(part.state, style=STATE_STYLES[part.state]), _text(part.detail)
        )
    console.print(table)
    for part in diagnosis.parts:
        if part.remedy:
            console.print(Text.assemble((f"{one_line(part.name)}: ", "yellow"), _text(part.remedy)))
    console.print(
        Text("the default path works", style="bold green")
        if diagnosis.ok
        else Text("the default path does not work yet", style="bold red")
    )

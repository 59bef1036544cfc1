"""An evaluation as files: `metrics.json`, `report.md` and a self-contained `report.html`.

Figures of different scorers never share a table; where a figure is not measurable the reason
stands in its place. Takes records and writes them down; measures nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from pydantic import Field

from medgen.data.images import SYNTHETIC_NOTICE, write_atomic
from medgen.errors import BadInput
from medgen.evaluation.figures import OVERALL, SUITES, Difference, Figure, Outcome, Suite
from medgen.records import Record

PICTURES = "pictures"
PLOT_INCHES = 6.4
MOST_PLOTTED = 24


class TableSummary(Record):
    """What one of the tables holds: images by modality, and how many groups."""

    name: str
    path: str
    images: dict[str, int]
    groups: int


class Evaluation(Record):
    """Everything `metrics.json` holds."""

    tables: list[TableSummary]
    suites: list[Suite]
    extractors: list[str]
    seed: int
    size: int
    command: str
    versions: dict[str, str]
    seconds: dict[str, float]
    outcomes: dict[Suite, Outcome] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Sheet:
    """The figures of one suite by one scorer: by metric, "overall" last.

    `notes` are the notes and floors of the figures, each once; `marks` gives for each figure
    which of them concern it, counted from 1.
    """

    scorer: str
    figures: list[Figure]
    plots: list[str]
    notes: list[str]
    marks: list[list[int]]


# What the summary shows of a modality: suite, metric, whose group starts with, heading.
SUMMARY: tuple[tuple[Suite, str, str, str], ...] = (
    ("fidelity", "KID", "", "KID"),
    ("fidelity", "coverage", "", "coverage"),
    ("diversity", "MS-SSIM within a prompt", "", "MS-SSIM"),
    ("alignment", "presence accuracy", "", "findings agree"),
    ("alignment", "modality agreement", "", "modality agrees"),
    ("privacy", "near-copies", "", "near-copies"),
    ("utility", "balanced accuracy", "trained on synthetic", "utility"),
)


@dataclass(frozen=True)
class Summary:
    """One line a modality: value over floor of the headline figures, by their first scorer."""

    headings: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]


def number(value: float | None) -> str:
    """A value with four digits that matter."""
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A value with its interval in brackets, or a dash."""
    if value is None:
        return "-"
    if low is None or high is None:
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def arrow(figure: Figure) -> str:
    """Which direction is better, as a word for the eye and for a screen reader."""
    return {"lower": "↓ lower is better", "higher": "↑ higher is better", None: ""}[figure.better]


def counted(figure: Figure) -> str:
    """The images behind a figure: synthetic and real."""
    return f"{figure.n} synthetic, {figure.n_real} real" if figure.n_real else f"{figure.n}"


def reads(difference: Difference) -> str:
    """What a difference says, in a word."""
    if difference.underpowered:
        return "underpowered: cannot be told from none"
    return "first larger" if difference.value > 0 else "second larger"


def sheets(outcome: Outcome) -> list[tuple[str, list[Figure]]]:
    """Figures by scorer, then by metric in the order in which the suite gave them."""
    by_scorer: dict[str, list[Figure]] = {}
    for figure in outcome.figures:
        by_scorer.setdefault(figure.scorer, []).append(figure)
    ordered = []
    for scorer, figures in by_scorer.items():
        metrics = list(dict.fromkeys(figure.metric for figure in figures))
        figures.sort(key=lambda one: (metrics.index(one.metric), one.scope == OVERALL))
        ordered.append((scorer, figures))
    return ordered


def summarise(evaluation: Evaluation) -> Summary:
    """The headline figures; columns that nothing was measured for are left out."""
    asked = {m for table in evaluation.tables if table.name == "synthetic" for m in table.images}
    scopes = [modal for modal in _modals(evaluation) if modal in asked]
    scopes += [OVERALL] if len(scopes) > 1 else []
    headings, columns = [], []
    for suite, metric, group, heading in SUMMARY:
        found = [
            one
            for one in (evaluation.outcomes[suite].figures if suite in evaluation.outcomes else [])
            if one.metric == metric and one.group == group
        ]
        if not any(one.value is not None for one in found):
            continue
        scorer = next(one.scorer for one in found if one.value is not None)
        by_scope = {one.scope: one for one in found if one.scorer == scorer}
        better = next(one.better for one in found if one.value is not None)
        headings.append((heading + {"lower": " ↓", "higher": " ↑", None: ""}[better], scorer))
        columns.append([_headline(by_scope.get(scope)) for scope in scopes])
    rows = [(scope, [column[place] for column in columns]) for place, scope in enumerate(scopes)]
    return Summary(headings, rows)


def _modals(evaluation: Evaluation) -> list[str]:
    """The modalities of all tables, those of the first table first."""
    return list(dict.fromkeys(modal for table in evaluation.tables for modal in table.images))


def _headline(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "not measurable"
    return (
        f"{figure.value:.3g} ({figure.floor:.3g})"
        if figure.floor is not None
        else (f"{figure.value:.3g}")
    )


def _sheet(suite: Suite, order: int, scorer: str, figures: list[Figure], out: Path) -> Sheet:
    notes: list[str] = []
    marks = []
    for figure in figures:
        said = [f"floor: {figure.floor_of}"] if figure.floor is not None and figure.floor_of else []
        said += [figure.note] if figure.note and figure.value is not None else []
        notes += [note for note in said if note not in notes]
        marks.append([notes.index(note) + 1 for note in said])
    return Sheet(scorer, figures, _plots(figures, suite, order, out), notes, marks)


def write(evaluation: Evaluation, out: Path) -> Path:
    """Write `metrics.json`, `report.md`, `report.html` and the plots; returns the page's path.

    Raises:
        BadInput: The folder cannot be written.
    """
    try:
        parts: dict[Suite, list[Sheet]] = {}
        for suite in SUITES:
            if suite in evaluation.outcomes:
                parts[suite] = [
                    _sheet(suite, order, scorer, figures, out)
                    for order, (scorer, figures) in enumerate(sheets(evaluation.outcomes[suite]))
                ]
        write_atomic(out / "metrics.json", evaluation.model_dump_json(indent=1) + "\n")
        write_atomic(out / "report.md", _render("report.md.j2", evaluation, parts, out))
        return write_atomic(out / "report.html", _render("report.html.j2", evaluation, parts, out))
    except OSError as error:
        raise BadInput(f"cannot write to {out} ({error}): choose a folder with --out") from error


def _render(name: str, evaluation: Evaluation, parts: dict[Suite, list[Sheet]], out: Path) -> str:
    environment = Environment(
        undefined=StrictUndefined,
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    template = resources.files("medgen.evaluation").joinpath(name).read_text(encoding="utf-8")
    return environment.from_string(template).render(
        evaluation=evaluation,
        parts=parts,
        notice=SYNTHETIC_NOTICE,
        interval=interval,
        arrow=arrow,
        counted=counted,
        reads=reads,
        number=number,
        summary=summarise(evaluation),
        modals=_modals(evaluation),
        inline=lambda file: _data_uri(out / file),
    )


def _data_uri(path: Path) -> str:
    kind = "svg+xml" if path.suffix == ".svg" else path.suffix.lstrip(".").lower()
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _plots(figures: Sequence[Figure], suite: Suite, order: int, out: Path) -> list[str]:
    """One picture a metric: values with intervals by scope and group, beside the floor."""
    files = []
    for metric in dict.fromkeys(figure.metric for figure in figures):
        rows = [one for one in figures if one.metric == metric and one.value is not None]
        if rows:
            name = re.sub(r"[^a-z0-9]+", "_", f"{suite} {order} {metric}".lower()).strip("_")
            file = f"{PICTURES}/{name}.png"
            write_atomic(out / file, _plot(metric, rows[:MOST_PLOTTED]))
            files.append(file)
    return files


def _plot(metric: str, rows: Sequence[Figure]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(PLOT_INCHES, 1.1 + 0.34 * len(rows)), layout="constrained")
    axes = canvas.add_subplot()
    for place, row in enumerate(reversed(rows)):
        for value, low, high, color, shift, label in (
            (row.value, row.low, row.high, "#1f5fa8", 0.12, "synthetic"),
            (row.floor, row.floor_low, row.floor_high, "#8a8a8a", -0.12, "real (floor)"),
        ):
            if value is None:
                continue
            if low is not None and high is not None:
                axes.plot([low, high], [place + shift] * 2, color=color, linewidth=2, alpha=0.6)
            axes.plot(value, place + shift, "o", color=color, markersize=5, label=label)
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels(
        [" · ".join(part for part in (row.scope, row.group) if part) for row in reversed(rows)],
        fontsize=8,
    )
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_title(f"{metric} {arrow(rows[0])}".strip(), fontsize=9)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), fontsize=7, loc="best")
    buffer = BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer)
    return buffer.getvalue()

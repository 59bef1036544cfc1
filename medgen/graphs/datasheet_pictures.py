"""The pictures of a datasheet: balance, distances to training images, and a grid of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medgen.data.dataset_figures import DatasetStats
from medgen.data.dataset_rows import Row
from medgen.data.images import load_square, png_bytes

THUMBNAIL = 128
SAMPLES = 8
MOST_ROWS = 20
LABEL_WIDTH = 240
INCHES = 7.0
BLUE, GREY, RED = "#1f5fa8", "#b9b9b9", "#b2182b"


class Sampler:
    """Chooses samples of each modality and label as rows pass: those whose ids hash lowest.

    The choice depends on the ids alone, so nobody picked the images.
    """

    def __init__(self) -> None:
        self.chosen: dict[tuple[str, str], list[tuple[str, Path]]] = {}

    def see(self, row: Row, file: Path) -> None:
        """Take an accepted row and its file into account."""
        among = self.chosen.setdefault((row.modality, row.label), [])
        among.append((hashlib.sha256(row.id.encode()).hexdigest(), file))
        among.sort()
        del among[SAMPLES:]


def grid(sampler: Sampler) -> bytes:
    """A PNG with a line of samples for each modality and label, marked as synthetic.

    Args:
        sampler: Has seen the rows.
    """
    lines = sorted(sampler.chosen.items())[:MOST_ROWS]
    height = max(1, len(lines)) * THUMBNAIL
    sheet = Image.new("RGB", (LABEL_WIDTH + SAMPLES * THUMBNAIL, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, ((modality, label), chosen) in enumerate(lines):
        top = place * THUMBNAIL
        words = _wrapped(f"{modality}: {label}", 30)
        draw.multiline_text((8, top + 8), words, fill="black", font=font)
        for column, (_, path) in enumerate(chosen):
            picture = Image.fromarray(load_square(path, THUMBNAIL))
            sheet.paste(picture, (LABEL_WIDTH + column * THUMBNAIL, top))
    return png_bytes(np.asarray(sheet), {})


def balance_plot(stats: DatasetStats) -> bytes:
    """A bar for each modality and label: accepted images, and tasks that got none."""
    cells = stats.cells[:60]
    axes, canvas = _axes(1.2 + 0.28 * max(1, len(cells)))
    names = [f"{cell.modality}: {cell.label}"[:60] for cell in cells]
    kept = [cell.kept for cell in cells]
    missing = [cell.tasks - cell.kept for cell in cells]
    places = range(len(cells))
    axes.barh(places, kept, color=BLUE, label="kept images")
    axes.barh(places, missing, left=kept, color=GREY, label="tasks without an image")
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("images", fontsize=8)
    axes.legend(fontsize=7)
    return _png(canvas)


def property_plot(counts: Mapping[str, Mapping[str, int]]) -> bytes:
    """A bar for each value of side, severity, view, age and sex among the accepted images."""
    bars = [
        (f"{name}: {value}", count)
        for name, values in counts.items()
        if name not in ("modality", "split")
        for value, count in values.items()
    ]
    axes, canvas = _axes(1.0 + 0.26 * max(1, len(bars)))
    axes.barh(range(len(bars)), [count for _, count in bars], color=BLUE)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("accepted images", fontsize=8)
    return _png(canvas)


def nearness_plot(
    drawn: Mapping[str, Sequence[float]],
    real: Mapping[str, Sequence[float]],
    thresholds: Mapping[str, float],
) -> bytes:
    """Distances to the nearest training image, drawn and real held-out, by modality.

    Args:
        drawn: Of the accepted images, by modality.
        real: Of real held-out images, by modality.
        thresholds: Under which a candidate was rejected.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES, 1.7 * max(1, len(drawn))), layout="constrained")
    for place, (modality, values) in enumerate(drawn.items(), 1):
        axes = figure.add_subplot(len(drawn), 1, place)
        known = list(real.get(modality, []))
        edges = np.histogram_bin_edges([*values, *known], bins=30)
        for numbers, color, name in ((known, GREY, "real held-out"), (values, BLUE, "drawn")):
            if len(numbers):
                weights = np.full(len(numbers), 1 / len(numbers))
                axes.hist(
                    numbers, edges.tolist(), weights=weights, color=color, alpha=0.7, label=name
                )
        if modality in thresholds:
            axes.axvline(thresholds[modality], color=RED, label="rejected below")
        axes.set_title(modality, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6)
    return _png(FigureCanvasAgg(figure))


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes, FigureCanvasAgg(figure)


def _png(canvas: Any) -> bytes:
    buffer = BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _wrapped(text: str, width: int) -> str:
    lines: list[str] = []
    for word in _pieces(text.split(), width):
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines[:6])


def _pieces(words: Iterable[str], width: int) -> list[str]:
    return [word[at : at + width] for word in words for at in range(0, len(word), width)]

"""Pictures for the privacy suite: the nearest pairs, and the distances as histograms.

The pairs show real training images and say so on the picture; the histograms show none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from medgen.data.images import write_atomic
from medgen.evaluation.figures import Picture

PICTURES = "pictures"
NOTICE = "contains real training images: do not share"


@dataclass(frozen=True)
class Pair:
    """A synthetic image, its nearest training image (both (H, H, 3) uint8), and how near."""

    synthetic: np.ndarray
    train: np.ndarray
    distance: float
    nearer_than: float
    """Share of real strangers that lie farther from their nearest training image."""


def draw_pairs(out: Path, modal: str, scorer: str, pairs: Sequence[Pair]) -> Picture:
    """Write the nearest pairs of one modality in one space, synthetic above, train below."""
    canvas = Canvas(figsize=(1.5 * len(pairs), 3.9), layout="constrained")
    axes = canvas.subplots(2, len(pairs), squeeze=False)
    for place, pair in enumerate(pairs):
        for row, (name, image) in enumerate((("synthetic", pair.synthetic), ("train", pair.train))):
            axis = axes[row][place]
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            if place == 0:
                axis.set_ylabel(name, fontsize=9)
        axes[0][place].set_title(
            f"{pair.distance:.2f}, nearer than\n{pair.nearer_than:.0%} of real ones", fontsize=7
        )
    canvas.suptitle(NOTICE.capitalize(), fontsize=10, color="#a01010")
    file = _file("nearest", modal, scorer)
    _write(canvas, out / file)
    return Picture(
        suite="privacy",
        file=file,
        caption=f"{modal}: the synthetic images nearest to a training image by {scorer}, and "
        f"that image; {NOTICE}",
    )


def draw_distances(
    out: Path, scorer: str, distances: Mapping[str, tuple[np.ndarray, np.ndarray, float]]
) -> Picture:
    """Write histograms of distances to the nearest training image, one row a modality.

    Args:
        out: The report's folder.
        scorer: Names the space.
        distances: By modality, (n,) of synthetic and (m,) of real images, and the threshold.
    """
    canvas = Canvas(figsize=(6.4, 0.6 + 1.3 * len(distances)), layout="constrained")
    axes = canvas.subplots(len(distances), 1, squeeze=False)[:, 0]
    for axis, (modal, (synthetic, real, limit)) in zip(axes, distances.items(), strict=True):
        finite = [values[np.isfinite(values)] for values in (real, synthetic)]
        bins = np.linspace(0, float(np.concatenate(finite).max()) * 1.02 + 1e-6, 41).tolist()
        for values, color, label in zip(
            finite, ("#8a8a8a", "#1f5fa8"), ("real", "synthetic"), strict=True
        ):
            axis.hist(values, bins, density=True, color=color, alpha=0.55, label=label)
        axis.axvline(limit, color="#a01010", linewidth=1, label="near-copy below")
        axis.set_yticks([])
        axis.set_ylabel(modal, fontsize=8)
    axes[0].legend(fontsize=7)
    axes[-1].set_xlabel("distance to the nearest training image", fontsize=8)
    file = _file("distances", scorer)
    _write(canvas, out / file)
    return Picture(
        suite="privacy",
        file=file,
        caption=f"Distances to the nearest training image by {scorer}: synthetic images left of "
        "the real ones lie nearer to the training images than strangers do",
    )


def _file(*words: str) -> str:
    name = re.sub(r"\W+", "_", " ".join(("privacy", *words)).lower()).strip("_")
    return f"{PICTURES}/{name}.png"


def _write(canvas: Canvas, path: Path) -> None:
    buffer = BytesIO()
    FigureCanvasAgg(canvas).print_png(buffer)
    write_atomic(path, buffer.getvalue())

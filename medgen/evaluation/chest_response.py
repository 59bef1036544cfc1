"""How chest films answer to sides and numbers that were asked: side of opacity, size of the heart.

Measured by evaluation's second segmenter (`chest`). A ratio that was asked is set against the
ratio that is measured; a side against the denser lung. Knows nothing of words or classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np

from medgen.data.images import write_atomic
from medgen.evaluation.asked import CHEST_FILM, RATIO, asked, asked_ratio, asked_side, numbers
from medgen.evaluation.chest import Film
from medgen.evaluation.context import Context
from medgen.evaluation.estimates import Better, Ruler, Sample, Statistic, joined
from medgen.evaluation.figures import LEAST, Figure, Outcome, Picture, unmeasured
from medgen.evaluation.tables import ImageTable, Row

SEGMENTER = "medgen evaluation chest segmenter"
PICTURE = "pictures/cardiothoracic_ratio.png"
Films = tuple[ImageTable, Sequence[Film | None]]


def measurable(context: Context, ours: Films, theirs: Films, outcome: Outcome) -> None:
    """Add the share of films whose lungs and heart the segmenter believes that it has found.

    All other figures here are of those films only: where few are measurable, so are they.
    """
    ruler = Ruler("alignment", SEGMENTER, context.chance, context.repetitions)
    for metric, part in (("lungs measurable", "opacities"), ("heart measurable", "ratio")):
        samples = [
            Sample(
                np.array(
                    [np.nan if f is None else getattr(f, part) is not None for f in films],
                    dtype=float,
                ),
                table.groups,
            )
            for table, films in (ours, theirs)
        ]
        outcome.figures.append(
            ruler.figure(
                metric,
                CHEST_FILM,
                *samples,
                better="higher",
                share=True,
                floor_of="real films",
            )
        )


def side_response(context: Context, ours: Films, theirs: Films, outcome: Outcome) -> None:
    """Add how often the denser lung is on the asked side, and by how much the sides respond."""
    ruler = Ruler("alignment", SEGMENTER, context.chance, context.repetitions)
    (mine, balance), (real, _) = _sides(ours), _sides(theirs)
    asked_films = sum(asked_side(row) is not None for row in ours[0].rows)
    if not asked_films:
        return
    known = np.isfinite(real.values).any()
    outcome.figures.append(
        ruler.figure(
            "side accuracy",
            CHEST_FILM,
            mine,
            real if known else None,
            better="higher",
            share=True,
            floor_of="real films whose side is given",
            note=joined(
                f"chance is 0.5; {len(mine.judged())} of {asked_films} films measurable",
                ""
                if known
                else f"no floor: the real table gives no side; {numbers()['outlined']['side']}",
            ),
        )
    )
    gap = ruler.difference(
        "opacity of the right lung minus the left",
        CHEST_FILM,
        ("asked on the right", balance["right"]),
        ("asked on the left", balance["left"]),
    )
    outcome.differences += [gap] if gap is not None else []


def _sides(films: Films) -> tuple[Sample, dict[str, Sample]]:
    """Whether the denser lung is the asked one, and right minus left opacity by asked side."""
    table, readings = films
    sides = [asked_side(row) for row in table.rows]
    right = np.full(len(table), np.nan)
    balance = np.full(len(table), np.nan)
    for index, (side, film) in enumerate(zip(sides, readings, strict=True)):
        if film is not None and film.opacities is not None:
            balance[index] = film.opacities[0] - film.opacities[1]
            if side is not None:
                right[index] = (balance[index] > 0) == (side == "right")
    by_side = {
        name: Sample(np.where([side == name for side in sides], balance, np.nan), table.groups)
        for name in ("right", "left")
    }
    return Sample(right, table.groups), by_side


def heart_response(context: Context, ours: Films, theirs: Films, outcome: Outcome) -> None:
    """Add the response of the cardiothoracic ratio to the ratio asked, with its curve."""
    ruler = Ruler("alignment", SEGMENTER, context.chance, context.repetitions)
    _cardiomegaly(ruler, ours, outcome)
    pairs, real = _ratios(ours), _ratios(theirs)
    requests = sum(_asked_here(row) is not None for row in ours[0].rows)
    if not requests:
        return
    judged, reference = pairs.judged(), real.judged()
    note = f"{len(judged)} of {requests} films measurable"
    varied = len(judged) >= LEAST and np.ptp(judged.values[:, 0]) > 0
    floor = reference if len(reference) and np.ptp(reference.values[:, 0]) > 0 else None
    responses: tuple[tuple[str, Statistic, Better], ...] = (
        ("cardiothoracic ratio, Spearman of asked and measured", spearman, "higher"),
        ("cardiothoracic ratio, slope of measured on asked", slope, None),
        ("cardiothoracic ratio, mean absolute error", absolute_error, "lower"),
    )
    answers: list[Figure] = []
    for metric, statistic, better in responses:
        if len(judged) >= LEAST and not varied and statistic is not absolute_error:
            answers.append(
                unmeasured(
                    "alignment",
                    metric,
                    CHEST_FILM,
                    SEGMENTER,
                    len(judged),
                    "all requests ask for one ratio",
                    better=better,
                )
            )
            continue
        answers.append(
            ruler.figure(
                metric,
                CHEST_FILM,
                pairs,
                floor,
                better=better,
                floor_of=f"real films, the table's {RATIO} in place of a request",
                note=joined(
                    note,
                    ""
                    if floor is not None
                    else f"no floor: the real table has no {RATIO}; "
                    f"{numbers()['outlined']['ratio']}",
                ),
                statistic=statistic,
            )
        )
    outcome.figures += answers
    if not varied:
        return
    curve = []
    for low, high, chosen in equal_bins(judged.values[:, 0], numbers()["most_bins"]):
        name = f"asked {low:.2f}" if low == high else f"asked {low:.2f}-{high:.2f}"
        figure = ruler.figure(
            "measured cardiothoracic ratio",
            CHEST_FILM,
            Sample(judged.values[chosen, 1], judged.groups[chosen]),
            None,
            group=name,
            note=f"mean request {judged.values[chosen, 0].mean():.3f}",
        )
        outcome.figures.append(figure)
        curve.append(
            (float(judged.values[chosen, 0].mean()), figure.value, figure.low, figure.high)
        )
    rank = answers[0]
    told = (
        "Spearman not defined"
        if rank.value is None
        else f"Spearman {rank.value:.2f} ({rank.low:.2f} to {rank.high:.2f})"
    )
    write_atomic(context.out / PICTURE, _plot(judged.values, np.array(curve, dtype=float)))
    outcome.pictures.append(
        Picture(
            suite="alignment",
            file=PICTURE,
            caption="Cardiothoracic ratio, asked and measured by evaluation's segmenter, "
            f"{len(judged)} films; {told}. Points are films, squares means of equal-count bins "
            "with their 95 % intervals, the line is perfect obedience.",
        )
    )


def _cardiomegaly(ruler: Ruler, films: Films, outcome: Outcome) -> None:
    """The difference in measured ratio between requests for a large and for a normal heart."""
    table, readings = films
    ratios = np.array([np.nan if f is None or f.ratio is None else f.ratio for f in readings])
    wanted = [asked(row, "cardiomegaly") if row.modal == CHEST_FILM else None for row in table.rows]
    samples = [
        Sample(np.where([w == want for w in wanted], ratios, np.nan), table.groups)
        for want in ("present", "absent")
    ]
    gap = ruler.difference(
        "measured cardiothoracic ratio",
        CHEST_FILM,
        ("cardiomegaly asked", samples[0]),
        ("normal heart asked", samples[1]),
    )
    outcome.differences += [gap] if gap is not None else []


def _asked_here(row: Row) -> float | None:
    return asked_ratio(row) if row.modal == CHEST_FILM else None


def _ratios(films: Films) -> Sample:
    """(n, 2) ratio asked and ratio measured; NaN in both where either is missing."""
    table, readings = films
    values = np.full((len(table), 2), np.nan)
    for index, (row, film) in enumerate(zip(table.rows, readings, strict=True)):
        wanted = _asked_here(row)
        if wanted is not None and film is not None and film.ratio is not None:
            values[index] = wanted, film.ratio
    return Sample(values, table.groups)


def spearman(pairs: np.ndarray) -> float:
    """Spearman's rank correlation of (n, 2) pairs; NaN where one side does not vary."""
    from scipy.stats import spearmanr

    if len(pairs) < 3 or np.ptp(pairs[:, 0]) == 0 or np.ptp(pairs[:, 1]) == 0:
        return float("nan")
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def slope(pairs: np.ndarray) -> float:
    """Least-squares slope of the second on the first of (n, 2); NaN where the first is constant."""
    if len(pairs) < 3 or np.ptp(pairs[:, 0]) == 0:
        return float("nan")
    return float(np.polyfit(pairs[:, 0], pairs[:, 1], 1)[0])


def absolute_error(pairs: np.ndarray) -> float:
    """Mean absolute difference of (n, 2) pairs."""
    return float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()) if len(pairs) else float("nan")


def equal_bins(asked_for: np.ndarray, most: int) -> list[tuple[float, float, np.ndarray]]:
    """Neighbouring requests in bins of about equal count, each of `LEAST` images or more.

    Returns:
        (lowest, highest, indices) of each bin; equal requests are never parted.
    """
    size = max(LEAST, len(asked_for) / most)
    bins: list[list[int]] = [[]]
    for value in np.unique(asked_for):
        if len(bins[-1]) >= size:
            bins.append([])
        bins[-1] += list(np.flatnonzero(asked_for == value))
    if len(bins) > 1 and len(bins[-1]) < LEAST:
        last = bins.pop()
        bins[-1] += last
    found = [np.array(indices) for indices in bins]
    return [(float(asked_for[i].min()), float(asked_for[i].max()), i) for i in found]


def _plot(pairs: np.ndarray, curve: np.ndarray) -> bytes:
    """The response curve as PNG; `curve` is (bins, 4): request, mean, low, high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    low, high = float(pairs.min()) - 0.02, float(pairs.max()) + 0.02
    axes.plot([low, high], [low, high], color="0.6", linewidth=1)
    axes.scatter(pairs[:, 0], pairs[:, 1], s=8, alpha=0.4, linewidths=0)
    spread = np.abs(curve[:, 2:].T - curve[:, 1])
    axes.errorbar(curve[:, 0], curve[:, 1], spread, fmt="s", color="black", capsize=3)
    axes.set(
        xlim=(low, high),
        ylim=(low, high),
        aspect="equal",
        xlabel="cardiothoracic ratio asked",
        ylabel="cardiothoracic ratio measured",
    )
    buffer = BytesIO()
    drawing.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()

"""Diversity: how unlike each other are images drawn from one prompt?

MS-SSIM (Wang, Simoncelli and Bovik 2003) and LPIPS (Zhang et al. 2018) between pairs of images of
one prompt, beside pairs of real images of one class from different patients. MINIM's own figure
can be had for comparison under a name that says what it is. Knows nothing of what images show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgen.errors import BadInput
from medgen.evaluation.context import Context
from medgen.evaluation.estimates import Better, Ruler, Sample
from medgen.evaluation.figures import LEAST, OVERALL, Figure, Outcome, unmeasured
from medgen.evaluation.similarity import Comparison, load_lpips, minim_ssim, ms_ssim
from medgen.evaluation.tables import ImageTable, Row
from medgen.knowledge.cards import modality_cards

# Five scales with an 11-pixel window (torchmetrics) leave nothing of smaller images.
LEAST_SIDE = 161
MOST_PAIRS = 200
BATCH = 8
SSIM_SCORER = "torchmetrics"
MS_SSIM = "MS-SSIM within a prompt"
LPIPS = "LPIPS within a prompt"
MINIM_MS_SSIM = "MINIM's MS-SSIM (SSIM of unrelated real/fake pairs)"
LPIPS_SCORER = "lpips, AlexNet"


@dataclass(frozen=True)
class Pair:
    """Two images of one table: their indices, the prompt or class they share, and its label."""

    first: int
    second: int
    shared: str
    label: str


def measure(
    context: Context, minim: bool = False, lpips_backbone: str | Path | None = None
) -> Outcome:
    """Measure diversity within prompts.

    Args:
        context: The evaluation; only its `real` and `synthetic` tables are used.
        minim: Also give what MINIM's metrics.py calls MS-SSIM.
        lpips_backbone: Folder with `alexnet.safetensors` (torchvision's ImageNet weights under
            their own names); torch's hub cache when None.

    Returns:
        MS-SSIM and LPIPS by modality, by class and overall.
    """
    outcome = Outcome()
    drawn = _pairs_by_modality(context, context.synthetic, _prompt)
    known = {
        modal: _like(pairs, context, modal)
        for modal, pairs in drawn.items()
        if modal in context.real.modals
    }
    if not any(drawn.values()):
        outcome.warnings.append(
            "diversity: no prompt has two images: draw several images a prompt to measure it"
        )
    _compare(context, outcome, drawn, known, MS_SSIM, SSIM_SCORER, "lower", ms_ssim)
    try:
        lpips = load_lpips(lpips_backbone)
    except BadInput as error:
        outcome.figures += [
            unmeasured("diversity", LPIPS, scope, LPIPS_SCORER, 0, str(error), better="higher")
            for scope in (*drawn, OVERALL)
        ]
    else:
        _compare(context, outcome, drawn, known, LPIPS, LPIPS_SCORER, "higher", lpips)
    if minim:
        outcome.figures += _minim(context)
    return outcome


def _prompt(row: Row) -> str:
    return row.text


def _class(row: Row) -> str:
    """What makes real images alike: their label within their source, else their text."""
    return f"{row.more.get('source', '')}|{row.label or row.text}"


def _pairs_by_modality(
    context: Context, table: ImageTable, shared: Callable[[Row], str]
) -> dict[str, list[Pair]]:
    return {
        modal: draw_pairs(
            table,
            # A row without a text tells no prompt, so it shares none.
            [i for i, row in enumerate(table.rows) if row.modal == modal and shared(row)],
            shared,
            context.chance("diversity", table.name, modal),
        )
        for modal in table.modals
    }


def draw_pairs(
    table: ImageTable,
    indices: Sequence[int],
    shared: Callable[[Row], str],
    generator: np.random.Generator,
    most: int | None = None,
    apart: bool = False,
) -> list[Pair]:
    """Draw pairs of images that share a prompt or class, none twice, each prompt in its turn.

    Args:
        table: The images.
        indices: Which of them.
        shared: What two images of a pair have in common.
        generator: Source of chance.
        most: Pairs at most, `MOST_PAIRS` when None.
        apart: Pair only images of different groups (patients).
    """
    most = MOST_PAIRS if most is None else most
    members: dict[str, list[int]] = defaultdict(list)
    for index in indices:
        members[shared(table.rows[index])].append(index)
    queues = []
    for name in sorted(members):
        pairs = _some_pairs(table, members[name], generator, most, apart)
        queues.append([Pair(i, j, name, table.rows[i].label) for i, j in pairs])
    turns = generator.permutation(len(queues))
    drawn: list[Pair] = []
    for depth in range(max((len(queue) for queue in queues), default=0)):
        drawn += [queues[turn][depth] for turn in turns if depth < len(queues[turn])]
        if len(drawn) >= most:
            break
    return drawn[:most]


def _some_pairs(
    table: ImageTable,
    members: list[int],
    generator: np.random.Generator,
    most: int,
    apart: bool,
) -> list[tuple[int, int]]:
    """Up to `most` different pairs; every image comes once before any comes a third time."""
    order = [members[k] for k in generator.permutation(len(members))]
    count = len(order)
    pairs: list[tuple[int, int]] = []
    for shift in range(1, count // 2 + 1):
        starts = (
            range(count // 2) if 2 * shift == count else (*range(0, count, 2), *range(1, count, 2))
        )
        for start in starts:
            i, j = order[start], order[(start + shift) % count]
            if not apart or table.rows[i].group != table.rows[j].group:
                pairs.append((i, j))
        if len(pairs) >= most:
            break
    return pairs[:most]


def _like(pairs: list[Pair], context: Context, modal: str) -> list[Pair]:
    """As many real pairs of one class and two patients, of the classes that were drawn.

    Classes are matched by source and label, else by label; all of the modality where neither is
    known.
    """
    rows, drawn = context.real.rows, context.synthetic.rows
    inside = [i for i, row in enumerate(rows) if row.modal == modal]
    classes = {_class(drawn[pair.first]) for pair in pairs}
    labels = {pair.label for pair in pairs} - {""}
    alike = [i for i in inside if _class(rows[i]) in classes]
    alike = alike or [i for i in inside if rows[i].label in labels]
    return draw_pairs(
        context.real,
        alike or inside,
        _class,
        context.chance("diversity", "real", modal),
        most=len(pairs),
        apart=True,
    )


def _pixels(table: ImageTable, indices: Sequence[int], color: bool) -> Tensor:
    """(n, 3 or 1, H, H) float in [0, 1]; grey where the modality has no colour."""
    pixels = torch.from_numpy(table.images(indices)).permute(0, 3, 1, 2).float() / 255
    return pixels if color else pixels.mean(1, keepdim=True)


def _scores(
    context: Context, table: ImageTable, pairs: list[Pair], metric: str, compare: Comparison
) -> Sample:
    """The comparison of each pair; pairs of one prompt or class hang together."""
    values: list[float] = []
    task = f"{metric}: {table.name} pairs"
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        color = modality_color(table.rows[part[0].first].modal)
        first = _pixels(table, [pair.first for pair in part], color)
        second = _pixels(table, [pair.second for pair in part], color)
        with torch.inference_mode():
            values += compare(first, second).tolist()
        context.progress(task, len(values), len(pairs))
    return Sample(np.array(values, dtype=float), np.array([pair.shared for pair in pairs]))


def modality_color(modal: str) -> bool:
    """Whether images of a modality are compared in colour; so are those without a card."""
    card = modality_cards().get(modal)
    return card is None or card.color


def _compare(
    context: Context,
    outcome: Outcome,
    drawn: dict[str, list[Pair]],
    known: dict[str, list[Pair]],
    metric: str,
    scorer: str,
    better: Better,
    compare: Comparison,
) -> None:
    """Add the figures of one comparison by modality, class and overall, and the differences."""
    ruler = Ruler("diversity", scorer, context.chance, context.repetitions)
    side = min(context.synthetic.size, context.real.size)
    if side < LEAST_SIDE:
        why = f"images have {side} pixels a side, {LEAST_SIDE} are needed: use --size 256"
        scopes = (*drawn, OVERALL)
        outcome.figures += [
            unmeasured("diversity", metric, scope, scorer, 0, why, better=better)
            for scope in scopes
        ]
        return
    floor_of = "pairs of real images of one class, different patients"
    figures = outcome.figures
    every: list[tuple[Sample, list[Pair], Sample, list[Pair]]] = []
    for modal, pairs in drawn.items():
        here = _scores(context, context.synthetic, pairs, metric, compare)
        real = known.get(modal, [])
        there = _scores(context, context.real, real, metric, compare)
        if min(_images(real, range(len(real))), _images(pairs, range(len(pairs)))) >= LEAST:
            every.append((here, pairs, there, real))
            gap = ruler.difference(metric, modal, ("synthetic", here), ("real", there))
            outcome.differences += [gap] if gap is not None else []
        for group in ("", *sorted({pair.label for pair in pairs} - {""})):
            ours = [k for k, pair in enumerate(pairs) if group in ("", pair.label)]
            theirs = [k for k, pair in enumerate(real) if group in ("", pair.label)]
            images = _images(pairs, ours)
            if group and min(images, len(ours)) < LEAST:
                continue
            figures.append(
                ruler.figure(
                    metric,
                    modal,
                    Sample(here.values[ours], here.groups[ours]),
                    Sample(there.values[theirs], there.groups[theirs]),
                    group=group,
                    better=better,
                    floor_of=floor_of,
                    unit="pair",
                    n=images,
                    n_real=_images(real, theirs),
                    note=f"{len(ours)} pairs" if ours else "no prompt has two images",
                )
            )
    figures.append(
        ruler.figure(
            metric,
            OVERALL,
            _together([part[0] for part in every]),
            _together([part[2] for part in every]),
            better=better,
            floor_of=floor_of,
            unit="pair",
            n=sum(_images(part[1], range(len(part[1]))) for part in every),
            n_real=sum(_images(part[3], range(len(part[3]))) for part in every),
            note=f"mean over the pairs of {len(every)} modalities",
        )
    )


def _images(pairs: list[Pair], chosen: Sequence[int]) -> int:
    return len({index for k in chosen for index in (pairs[k].first, pairs[k].second)})


def _together(samples: list[Sample]) -> Sample:
    """One sample of several; equal names in two of them stay different groups."""
    if not samples:
        return Sample(np.zeros(0), np.zeros(0, dtype=str))
    groups = [f"{k}|{group}" for k, sample in enumerate(samples) for group in sample.groups]
    return Sample(np.concatenate([sample.values for sample in samples]), np.array(groups))


def _minim(context: Context) -> list[Figure]:
    """SSIM of synthetic images with real ones that have nothing to do with them."""
    ruler = Ruler("diversity", SSIM_SCORER, context.chance, context.repetitions)
    note = "for comparison with MINIM's table only: it tells neither diversity nor fidelity"
    figures: list[Figure] = []
    every: list[Sample] = []
    for modal in context.synthetic.modals:
        generator = context.chance("minim", modal)
        sides = []
        for table in (context.synthetic, context.real):
            inside = [i for i, row in enumerate(table.rows) if row.modal == modal]
            sides.append([inside[k] for k in generator.permutation(len(inside))])
        count = min(len(sides[0]), len(sides[1]), MOST_PAIRS)
        values: list[float] = []
        color = modality_color(modal)
        for start in range(0, count, BATCH):
            stop = min(start + BATCH, count)
            ours = _pixels(context.synthetic, sides[0][start:stop], color)
            theirs = _pixels(context.real, sides[1][start:stop], color)
            with torch.inference_mode():
                values += minim_ssim(ours, theirs).tolist()
            context.progress("MINIM's MS-SSIM", len(values), count)
        sample = Sample(np.array(values, dtype=float), np.arange(count))
        every.append(sample)
        figures.append(ruler.figure(MINIM_MS_SSIM, modal, sample, None, n_real=count, note=note))
    pooled = _together(every)
    return [
        *figures,
        ruler.figure(MINIM_MS_SSIM, OVERALL, pooled, None, n_real=len(pooled), note=note),
    ]

"""Is what was asked for there? Each finding's presence by evaluation's reader, with its own error.

Accuracy, sensitivity and specificity of what was asked, beside those of real images and their
texts, where the reader's own error shows. Classes are compared within a source only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medgen.evaluation import reader
from medgen.evaluation.asked import asked, numbers
from medgen.evaluation.context import Context
from medgen.evaluation.estimates import Ruler, Sample
from medgen.evaluation.figures import LEAST, OVERALL, Figure, Outcome, unmeasured
from medgen.evaluation.seen import REAL, Seen
from medgen.knowledge.cards import finding_cards

READER = "medgen evaluation reader"

# One number says what was asked and whether it was seen: 0 absent, but seen; 1 absent and not seen;
# 2 present, but not seen; 3 present and seen. NaN where nothing was asked or judged.


def sensitivity(codes: np.ndarray) -> float:
    """Share of images asked to show a finding in which it is seen, of (n,) codes."""
    asked_for = codes[codes >= 2]
    return float((asked_for == 3).mean()) if len(asked_for) else float("nan")


def specificity(codes: np.ndarray) -> float:
    """Share of images asked to be without a finding in which it is not seen, of (n,) codes."""
    unwanted = codes[codes < 2]
    return float((unwanted == 1).mean()) if len(unwanted) else float("nan")


def presence_accuracy(codes: np.ndarray) -> float:
    """Mean of sensitivity and specificity, over the columns where there is one of several."""
    columns = codes.reshape(len(codes), -1).T
    balanced = [(sensitivity(column) + specificity(column)) / 2 for column in columns]
    known = [value for value in balanced if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def rivals(entries: list[dict]) -> set[str]:
    """Classes that the labels behind a finding's heads never give together with it."""
    classes = reader.reader_heads()
    shown = {name for entry in entries for name in entry["shows"]}
    return {name for entry in entries for name in classes[entry["head"]]} - shown


def judge(seen: Seen, modal: str, finding: str, entries: list[dict]) -> tuple[np.ndarray, int]:
    """(n,) codes of a finding, and how many images it was asked of.

    Within the sources that have images both with and without it. An image that is not read as its
    modality is wrong whatever was asked; a film of a population in which the reader does not know
    the finding is not judged.
    """
    others = rivals(entries)
    rows = seen.table.rows
    wanted = [asked(row, finding, others) if row.modal == modal else None for row in rows]
    sources: dict[str, set[str]] = defaultdict(set)
    for row, want in zip(rows, wanted, strict=True):
        if want is not None:
            sources[row.more.get("source", "")].add(want)
    codes, count = np.full(len(rows), np.nan), 0
    for index, (row, want) in enumerate(zip(rows, wanted, strict=True)):
        if want is None or len(sources[row.more.get("source", "")]) < 2:
            continue
        count += 1
        reading, base = seen.readings[index], 2.0 * (want == "present")
        if reading.modality != modal:
            codes[index] = base
        elif finding in reading.findings:
            there = reading.findings[finding] >= numbers()["seen_from"]
            codes[index] = base + (there == (want == "present"))
    return codes, count


def _enough(codes: np.ndarray) -> bool:
    return min(int((codes >= 2).sum()), int((codes < 2).sum())) >= LEAST


def presence(context: Context, ours: Seen, theirs: Seen, outcome: Outcome) -> None:
    """Add the figures of each finding that was asked for, and their mean by modality."""
    ruler = Ruler("alignment", READER, context.chance, context.repetitions)
    every: list[tuple[np.ndarray, np.ndarray]] = []
    for modal in context.synthetic.modals:
        columns = []
        for finding, entries in reader.reader_card()["findings"].get(modal, {}).items():
            card = finding_cards()[modal].get(finding)
            if card is not None and card.kind == "normal":
                continue
            codes, count = judge(ours, modal, finding, entries)
            real, _ = judge(theirs, modal, finding, entries)
            unfit = [entry["reason"] for entry in entries if not entry["measurable"]]
            if len(unfit) == len(entries):
                outcome.figures += _unfit(modal, finding, unfit[0], count)
                continue
            outcome.figures += _finding(ruler, ours, theirs, modal, finding, codes, real, count)
            if _enough(codes):
                columns.append((codes, real))
        measured = [pair for pair in columns if _enough(pair[1])] or columns
        every += measured
        outcome.figures.append(_mean_presence(ruler, ours, theirs, modal, measured, outcome))
    if len(context.synthetic.modals) > 1:
        with_floor = [pair for pair in every if _enough(pair[1])] or every
        outcome.figures.append(_mean_presence(ruler, ours, theirs, OVERALL, with_floor, outcome))


def _mean_presence(
    ruler: Ruler,
    ours: Seen,
    theirs: Seen,
    scope: str,
    columns: Sequence[tuple[np.ndarray, np.ndarray]],
    outcome: Outcome,
) -> Figure:
    """The mean presence accuracy of several findings, resampled together."""
    metric = "presence accuracy"
    if not columns:
        n = int(ours.within(scope).sum())
        why = f"no finding has {LEAST} images that ask for it and {LEAST} that exclude it"
        return unmeasured("alignment", metric, scope, READER, n, why, better="higher")
    mine = Sample(np.stack([c[0] for c in columns], 1), ours.table.groups)
    real = Sample(np.stack([c[1] for c in columns], 1), theirs.table.groups)
    floor = real if all(_enough(c[1]) for c in columns) else None
    if floor is not None:
        gap = ruler.difference(
            metric, scope, ("synthetic", mine), ("real", real), presence_accuracy
        )
        outcome.differences += [gap] if gap is not None else []
    return ruler.figure(
        metric,
        scope,
        mine,
        floor,
        better="higher",
        floor_of=REAL,
        share=True,
        statistic=presence_accuracy,
        note=f"mean of sensitivity and specificity over {len(columns)} "
        f"finding{'s' if len(columns) != 1 else ''}",
    )


def _finding(
    ruler: Ruler,
    ours: Seen,
    theirs: Seen,
    modal: str,
    finding: str,
    codes: np.ndarray,
    real: np.ndarray,
    count: int,
) -> list[Figure]:
    """Accuracy, sensitivity and specificity of one finding; nothing where nobody asked for it."""
    present, absent = int((codes >= 2).sum()), int((codes < 2).sum())
    if not present:
        return []
    metrics = {
        "presence accuracy": (presence_accuracy, codes >= 0, real >= 0, present + absent),
        "sensitivity": (sensitivity, codes >= 2, real >= 2, present),
        "specificity": (specificity, codes < 2, real < 2, absent),
    }
    lost = count - present - absent
    note = (
        f"{lost} of {count} not judged: the reader does not know it in such films" if lost else ""
    )
    figures = []
    for metric, (statistic, chosen, real_chosen, n) in metrics.items():
        if metric == "presence accuracy" and not _enough(codes):
            why = f"{present} images with it and {absent} without, {LEAST} of each are needed"
            figures.append(
                unmeasured(
                    "alignment", metric, modal, READER, n, why, group=finding, better="higher"
                )
            )
            continue
        floor = Sample(real[real_chosen], theirs.table.groups[real_chosen])
        if metric == "presence accuracy" and not _enough(real):
            floor = Sample(floor.values[:0], floor.groups[:0])
        figures.append(
            ruler.figure(
                metric,
                modal,
                Sample(codes[chosen], ours.table.groups[chosen]),
                floor,
                group=finding,
                better="higher",
                floor_of=REAL,
                share=True,
                statistic=statistic,
                note=note if metric == "presence accuracy" else "",
            )
        )
    return figures


def _unfit(modal: str, finding: str, why: str, count: int) -> list[Figure]:
    """That a finding was asked of some images, and that the reader cannot judge it."""
    if not count:
        return []
    return [
        unmeasured(
            "alignment",
            "presence accuracy",
            modal,
            READER,
            count,
            f"the reader judges it too poorly on real images ({why})",
            group=finding,
            better="higher",
        )
    ]

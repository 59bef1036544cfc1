"""The end of a round: before against after by held-out scorers, and the report in two forms.

Knows figures and words; what is compared is in `medgen.evaluation.paired`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from medgen.data.formats import Reading, read_rows
from medgen.data.images import SYNTHETIC_NOTICE, write_atomic
from medgen.data.splits import is_validation
from medgen.errors import BadInput
from medgen.evaluation.encoder import bundled_encoder
from medgen.evaluation.paired import (
    Change,
    Drawn,
    Resampling,
    agreement_changes,
    copies_change,
    diversity_changes,
    fidelity_change,
)
from medgen.evaluation.tables import ImageTable, Row
from medgen.generator.adapter import AdapterLineage, read_lineage
from medgen.graphs.rlhf_anatomy import anatomy_change, implausible
from medgen.graphs.rlhf_config import EvaluationStage, RoundConfig
from medgen.graphs.rlhf_drawing import Progress, Task, listed
from medgen.graphs.rlhf_watch import PLOT, WatchPoint, plot, watch
from medgen.records import Record

if TYPE_CHECKING:
    from medgen.generator.training.progress import Reporter
    from medgen.graphs.rlhf import SelectorUse

ALL = "all seeds"


class RoundReport(Record):
    """What a round found: `changes` by seed and over all seeds, `watch` over training steps."""

    out: str
    log: str
    selector: str
    selector_used: bool
    adapters: dict[str, AdapterLineage]
    folders: dict[str, str]
    changes: dict[str, list[Change]]
    watch: list[WatchPoint] = Field(default_factory=list)
    watched_reward: str = ""
    images: int
    steps: int
    notes: list[str] = Field(default_factory=list)


def conclude(
    config: RoundConfig,
    tasks: Sequence[Task],
    adapters: dict[int, Path],
    use: SelectorUse,
    reporter: Reporter,
    progress: Progress,
) -> RoundReport:
    """Judge the drawings, watch for reward hacking, write `report/report.md` and `.json`."""
    folder = config.out / "report"
    drawn = config.out / "drawn"
    before = listed(tasks, drawn / "before")
    after = {seed: listed(tasks, drawn / f"after-{seed}") for seed in adapters}
    changes, notes = judge(config, before, after, progress)
    selector = Path(use.folder) if use.folder else None
    points, watched = watch(config, tasks, selector, progress)
    if points:
        plot(points, watched, folder)
    lineages = {str(seed): read_lineage(adapter) for seed, adapter in adapters.items()}
    for lineage in lineages.values():
        notes += [note for note in lineage.notes if note not in notes]
    report = RoundReport(
        out=str(config.out.resolve()),
        log=next(iter(lineages.values())).log,
        selector=use.why,
        selector_used=use.used,
        adapters=lineages,
        folders={str(seed): str(adapter.resolve()) for seed, adapter in adapters.items()},
        changes=changes,
        watch=points,
        watched_reward=watched,
        images=len(tasks),
        steps=config.synthesis.steps,
        notes=notes,
    )
    write_atomic(folder / "report.md", markdown(report))
    # Last, for it says that the round is finished.
    write_atomic(folder / "report.json", report.model_dump_json(indent=1) + "\n")
    reporter.say(f"report: {folder / 'report.md'}")
    return report


def judge(
    config: RoundConfig, before: ImageTable, after: dict[int, ImageTable], progress: Progress
) -> tuple[dict[str, list[Change]], list[str]]:
    """Every change by seed and over all seeds, and what the reader should know."""
    stage, encoder, notes = config.evaluation, bundled_encoder(), []
    resampling = Resampling(config.synthesis.seed, stage.samples)
    real = real_images(stage, before.modals) if stage.real is not None else None
    if real is None:
        notes.append("no real images to compare with: fidelity was not measured")
    elif stage.fold == "validation":
        notes.append("real images are those of the validation fold, not of the test split")
    seen, unlike = {"before": Drawn(before)}, {"before": implausible(before)}
    for done, (seed, table) in enumerate(after.items()):
        seen[str(seed)], unlike[str(seed)] = Drawn(table), implausible(table)
        progress("reading drawings", done + 1, len(after))
    sets = {f"seed {seed}": [seed] for seed in after}
    if len(after) > 1:
        sets[ALL] = list(after)
    changes: dict[str, list[Change]] = {}
    for place, (name, seeds) in enumerate(sets.items()):
        tables, found = [after[seed] for seed in seeds], []
        for modality in before.modals:
            drawn = [seen[str(seed)] for seed in seeds]
            found += agreement_changes(seen["before"], drawn, modality, resampling)
            if real is not None:
                fidelity = fidelity_change(real, before, tables, modality, encoder, 0)
                if fidelity is not None:
                    found.append(fidelity)
                else:
                    note = f"{modality}: too few images for KID (60 drawn and 60 real are needed)"
                    notes += [] if note in notes else [note]
            found += diversity_changes(before, tables, modality, encoder, resampling)
            copies = copies_change(before, tables, modality, resampling)
            anatomy = anatomy_change(
                unlike["before"], [unlike[str(seed)] for seed in seeds], before, modality,
                resampling,
            )  # fmt: skip
            found += [one for one in (copies, anatomy) if one is not None]
        changes[name] = found
        progress("comparing", place + 1, len(sets))
    return changes, notes


def real_images(stage: EvaluationStage, modalities: Sequence[str]) -> ImageTable:
    """The real images of the fold that is compared with, of the modalities that were drawn.

    Raises:
        BadInput: The table has none.
    """
    assert stage.real is not None
    rows = []
    for row in read_rows(stage.real, Reading()):
        if row["modal"] not in modalities:
            continue
        split, group = row.get("split") or "test", row.get("group") or row["path"]
        fold = "test" if split == "test" else "validation" if is_validation(group) else "training"
        if fold == stage.fold:
            rows.append(Row(Path(row["path"]), row["text"], row["modal"], group=group))
    if not rows:
        raise BadInput(
            f"evaluation.real: {stage.real} has no {stage.fold} row of {', '.join(modalities)}"
        )
    return ImageTable(name="real", rows=tuple(rows), size=256, grouped=True)


def markdown(report: RoundReport) -> str:
    """The report to read."""
    lines = ["# A round of learning from feedback", "", SYNTHETIC_NOTICE, ""]
    lines += [
        f"Log {report.log[:12]}; selector: {report.selector}. {report.images} images before and "
        f"after each seed, the same prompts, seeds and {report.steps} steps. Judged by "
        "evaluation's scorers, which the loop did not optimise; intervals are 95 %, paired by "
        "prompt.",
        "",
        "| seed | adapter | method | step | ended | labels |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for seed, one in report.adapters.items():
        labels = ", ".join(f"{count} {source}" for source, count in one.labels.items())
        lines.append(
            f"| {seed} | {one.id} | {one.method} | {one.step} | {one.stopped} | {labels} |"
        )
    for name, changes in report.changes.items():
        lines += ["", f"## {name[0].upper()}{name[1:]}", ""]
        lines += ["| modality | figure | before | after | change | relative | images, prompts |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: | --- |"]
        lines += [_row(one) for one in changes]
    if report.watch:
        lines += ["", "## Reward against held-out scorers", ""]
        lines += [f"![{report.watched_reward} and held-out scorers over steps]({PLOT})", ""]
        lines += [f"| seed | step | {report.watched_reward} | disagreement | doubt |"]
        lines += ["| --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {one.seed} | {one.step} | {one.reward:.3f} | {_number(one.disagreement)} | "
            f"{_number(one.doubt)} |"
            for one in report.watch
        ]
    if report.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in report.notes)]
    return "\n".join(lines) + "\n"


def _row(one: Change) -> str:
    arrow = "↓" if one.better == "lower" else "↑"
    relative = "-"
    if one.relative is not None and one.relative_low is not None and one.relative_high is not None:
        relative = f"{one.relative:+.0%} [{one.relative_low:+.0%}, {one.relative_high:+.0%}]"
    return (
        f"| {one.modality} | {one.metric} {arrow} ({one.scorer}) | {one.before:.3f} | "
        f"{one.after:.3f} | {one.change:+.3f} [{one.low:+.3f}, {one.high:+.3f}] | {relative} | "
        f"{one.images}, {one.prompts} |"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

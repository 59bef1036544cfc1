"""A dataset's images measured again: which verdicts come out otherwise than the manifest says.

The same images, weights and rules give the same verdicts; other weights or rules need not, and how
many labels they touch is what this tells.
"""

from __future__ import annotations

from medgen.data.check import LISTED
from medgen.data.dataset_check import DatasetReport, Fault
from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import Row
from medgen.data.dataset_stats import silent
from medgen.data.exports.items import Progress
from medgen.data.images import load_square
from medgen.errors import BadInput
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.records import Critique


def remeasure(
    report: DatasetReport,
    *,
    collaborators: Collaborators | None = None,
    progress: Progress = silent,
) -> None:
    """Ask the verifier about every image again, and write into the report what changed.

    Args:
        report: Of `check_dataset`; `measured` and `changed` are filled.
        collaborators: What verifies; this process's own when None.
        progress: Told how many images were measured.

    Raises:
        BadInput: The manifest cannot be read.
    """
    minds = collaborators or shared_collaborators()
    with minds.turn:
        panel = minds.panel
    dataset = open_dataset(report.dataset)
    report.measured, report.changed = 0, []
    others, total = set(), dataset.row_count
    for number, row in enumerate(dataset.rows(), 1):
        if row.verifier != panel.fingerprint:
            others.add(row.verifier)
        try:
            side = max(row.width, row.height)
            pixels = load_square(dataset.file(row), side)
        except BadInput:
            continue  # told as a missing or broken file already
        with minds.turn:
            critique = panel.verify(pixels, row.plan)
        report.measured += 1
        if text := changes(row, critique):
            report.counts["changed verdict"] = report.counts.get("changed verdict", 0) + 1
            if len(report.changed) < LISTED:
                report.changed.append(Fault(kind="changed verdict", about=row.id, text=text))
        progress("measured", number, total)
    if others:
        report.notes.append(
            f"verified by {', '.join(sorted(others))}, measured again by {panel.fingerprint}: "
            "changed verdicts may come from the other weights or rules"
        )


def changes(row: Row, critique: Critique) -> str:
    """What of an image's verdicts is not as the row says, in a line; empty when all is."""
    name = f"{row.id} attempt {row.attempt}"
    told = []
    if critique.accepted != row.accepted:
        told.append(f"accepted {_word(row.accepted)}, now {_word(critique.accepted)}")
    before = {one.finding: one.verdict for one in row.findings}
    for one in critique.findings:
        if before.get(one.finding) != one.verdict:
            told.append(f"{one.finding} {before.get(one.finding)}, now {one.verdict}")
    return f"{name}: {'; '.join(told)}" if told else ""


def _word(accepted: bool | None) -> str:
    return {True: "true", False: "false", None: "null"}[accepted]

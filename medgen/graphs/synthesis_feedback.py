"""Puts a dataset's candidates into the feedback log, where they can be rated and trained on.

The log gets what an agent run would have told it: plan, candidates with their critiques, and which
one was kept. Knows the journal; the labels are given later, by whoever rates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_layout import settled_name
from medgen.data.exports.items import Progress
from medgen.data.images import pixel_sha256
from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import LoggedCandidate, LoggedRun
from medgen.graphs.synthesis_journal import JOURNAL, SETTLED, Journal, TaskRow
from medgen.graphs.synthesis_tasks import Attempt
from medgen.records import Plan, Record, Request


class Collected(Record):
    """What a log was told of a dataset: runs and candidates that were new, images that are gone."""

    dataset: str
    log: str
    runs: int
    candidates: int
    known_runs: int
    missing: int


def collect(folder: Path, log: FeedbackLog, progress: Progress = lambda *_: None) -> Collected:
    """Add a finished dataset's candidates to a feedback log; what the log has stays as it is.

    Args:
        folder: That `medgen synthesize` wrote.
        log: Opened.
        progress: Told how many images were read.

    Raises:
        BadInput: No finished dataset, or one without its journal.
    """
    dataset = open_dataset(folder)
    path = dataset.folder / JOURNAL
    if not path.is_file():
        raise BadInput(
            f"{dataset.folder} has no {JOURNAL}, which says what each candidate was told: collect "
            "from the folders that medgen synthesize wrote, not from what they were merged into"
        )
    journal = Journal(path)
    try:
        read = 0
        told = {"runs": 0, "candidates": 0, "known_runs": 0, "missing": 0}
        for task in journal.tasks(SETTLED):
            run, missing = _logged(journal, task, dataset.folder)
            told["missing"] += missing
            if run.candidates and log.append_run(run):
                told["runs"] += 1
                told["candidates"] += len(run.candidates)
            elif run.candidates:
                told["known_runs"] += 1
            read += len(run.candidates) + missing
            progress("read", read, dataset.row_count)
    finally:
        journal.close()
    return Collected(dataset=str(dataset.folder), log=log.name, **told)


def _logged(journal: Journal, task: TaskRow, folder: Path) -> tuple[LoggedRun, int]:
    """A task as a run of the log, and how many of its images are gone."""
    generator: dict[str, Any] = journal.meta("generator")
    reasoned = journal.reasoned(task.task.prompt, task.task.modality)
    assert reasoned is not None, task.task.prompt
    plan = Plan.model_validate(reasoned.plan)
    # Of one specification and seed: the same task is the same images.
    name = f"{task.task.id}.{journal.meta('spec_sha256')[:12]}"
    attempts = journal.attempts(task.task.id)
    found = [(one, path) for one in attempts if (path := _image(task, one, folder)).is_file()]
    candidates = [
        LoggedCandidate(
            run=name,
            prompt=task.task.prompt,
            modality=plan.modality,
            image_sha256=pixel_sha256(path),
            chosen=_chosen(task, one),
            decision="accept" if _chosen(task, one) else None,
            why="kept in the dataset" if _chosen(task, one) else "",
            drawn=one.candidate.model_copy(update={"image": str(path)}),
        )
        for one, path in found
    ]
    request = Request(prompt=task.task.prompt, modality=task.task.modality, seed=task.task.seed)
    run = LoggedRun(
        run=name,
        request=request,
        plan=plan,
        generator=generator["name"],
        fingerprint=generator["fingerprint"],
        candidates=candidates,
    )
    # An accepted candidate that was not needed has no image.
    gone = sum(not one.kept or _chosen(task, one) for one in attempts) - len(found)
    return run, max(0, gone)


def _image(task: TaskRow, attempt: Attempt, folder: Path) -> Path:
    return folder / settled_name(task.task.id, attempt.attempt, _chosen(task, attempt))


def _chosen(task: TaskRow, attempt: Attempt) -> bool:
    kept = attempt.attempt == task.accepted and not task.spare
    return kept and task.turned_down is None

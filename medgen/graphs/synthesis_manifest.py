"""From the journal to the dataset's manifest: which images are kept, and one row for each.

Reads the journal and moves files; everything here may be done again after a kill, with the same
outcome. A row says nothing of time or place, so the same specification and seed give the same
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from medgen.data.dataset_layout import (
    IMAGES,
    REJECTED,
    image_name,
    rejected_name,
    settled_name,
)
from medgen.data.dataset_rows import Row
from medgen.graphs.synthesis_journal import SETTLED, Journal, TaskRow
from medgen.graphs.synthesis_store import (
    Store,
)
from medgen.graphs.synthesis_tasks import Attempt, Reasoned
from medgen.graphs.synthesis_worker import Hello
from medgen.measure.memorisation import bundled_index
from medgen.records import Critique, Finding, Plan

NORMAL = "normal"


def shortfalls(critique: Critique) -> list[str]:
    """Why a candidate was not accepted, one line each; empty for an accepted one."""
    lines = list(critique.rejections)
    lines += [
        f"contradicted: {one.finding}" for one in critique.findings if one.verdict == "contradicted"
    ]
    if not lines and critique.accepted is not True:
        unsure = [one.finding for one in critique.findings if one.measurements]
        lines = [f"within measuring error: {one}" for one in unsure]
    if not lines and critique.accepted is not True:
        lines = ["nothing that was asked could be measured"]
    return lines


def few_words(critique: Critique) -> str:
    """The first reason why a candidate was not accepted, without its figures; empty if accepted."""
    lines = shortfalls(critique)
    if not lines:
        return ""
    words = re.split(r" \(|,", lines[0])[0]
    return re.sub(r"\s*-?\d[\d.]*", "", words)


@dataclass(frozen=True)
class Kept:
    """What a cell keeps: ids turned down with the reason, and ids that are too many."""

    turned_down: dict[str, str]
    spare: list[str]


def choose(
    accepted: list[tuple[TaskRow, Attempt]], modality: str, most: int | None, near_copies: bool
) -> Kept:
    """Which of a cell's accepted images are kept.

    Args:
        accepted: Tasks by number with their accepted attempts; the earlier of two alike is kept.
        modality: Whose threshold of copies is used.
        most: Keep no more, leaving out the most alike; None keeps all.
        near_copies: Turn down images that are as near to another one as copies are.
    """
    known = bundled_index().calibration.get(modality)
    limit = float(known["threshold"]) if known and near_copies else 0.0
    turned_down: dict[str, str] = {}
    kept: list[tuple[str, float]] = []
    vectors = np.zeros((len(accepted), _width(accepted)), dtype=np.float32)
    for row, attempt in accepted:
        vector = _vector(attempt.descriptor)
        critique = attempt.candidate.critique
        if vector is not None and limit and kept:
            distances = _distances(vectors[: len(kept)], vector)
            nearest = int(distances.argmin())
            if distances[nearest] < limit:
                turned_down[row.task.id] = (
                    f"near copy of {kept[nearest][0]} (distance {distances[nearest]:.3f})"
                )
                continue
        if vector is not None:
            vectors[len(kept)] = vector
        kept.append((row.task.id, critique.score if critique else 0.0))
    if most is None or len(kept) <= most:
        return Kept(turned_down, [])
    return Kept(turned_down, _most_alike(vectors[: len(kept)], kept, most))


def _width(accepted: list[tuple[TaskRow, Attempt]]) -> int:
    vectors = (_vector(attempt.descriptor) for _, attempt in accepted)
    return max((vector.size for vector in vectors if vector is not None), default=1)


def _vector(text: str) -> np.ndarray | None:
    if not text:
        return None
    return np.frombuffer(bytes.fromhex(text), dtype=np.float16).astype(np.float32)


def _distances(vectors: np.ndarray, one: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.maximum(0.0, 2.0 - 2.0 * (vectors @ one))))


def _most_alike(vectors: np.ndarray, kept: list[tuple[str, float]], most: int) -> list[str]:
    """Ids to leave out until `most` are left: of the two nearest, the one with the lower score."""
    left = list(range(len(kept)))
    between = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * (vectors @ vectors.T)))
    np.fill_diagonal(between, np.inf)
    out = []
    while len(left) > most:
        part = between[np.ix_(left, left)]
        row, column = np.unravel_index(int(part.argmin()), part.shape)
        pair = (left[int(row)], left[int(column)])
        worse = min(pair, key=lambda index: (kept[index][1], -index))
        left.remove(worse)
        out.append(kept[worse][0])
    return out


def place_turned_down(store: Store, tasks: dict[str, int | None]) -> None:
    """Move the images of tasks that were turned down to the rejected ones."""
    for task, accepted in tasks.items():
        if accepted is not None:
            store.move(image_name(task), rejected_name(task, accepted))


def rows(journal: Journal, hello: Hello) -> Iterator[Row]:
    """The manifest's rows in order: of settled tasks, accepted and rejected candidates.

    Args:
        journal: Of the run.
        hello: What drew and verified.
    """
    for task in journal.tasks(SETTLED):
        attempts = journal.attempts(task.task.id)
        reasoned = _reasoned(journal, task.task.prompt, task.task.modality)
        control = next((one for one in attempts if one.candidate.control), None)
        critique = control.candidate.critique if control else None
        for attempt in attempts:
            told = attempt.candidate.critique
            chosen = attempt.attempt == task.accepted and not task.spare
            if told is None or (attempt.kept and not chosen):
                continue  # an accepted candidate that was not needed: neither kept nor a negative
            yield _row(task, attempt, reasoned, critique.score if critique else None, hello)


@lru_cache(maxsize=4096)
def _reasoned(journal: Journal, prompt: str, modality: str | None) -> Reasoned:
    found = journal.reasoned(prompt, modality)
    assert found is not None, prompt
    return found


def _row(
    task: TaskRow, attempt: Attempt, reasoned: Reasoned, control: float | None, hello: Hello
) -> Row:
    candidate, plan = attempt.candidate, Plan.model_validate(reasoned.plan)
    critique = candidate.critique
    assert critique is not None
    reasons = [] if attempt.kept else shortfalls(critique)
    if attempt.kept and task.turned_down is not None:
        reasons = [task.turned_down]
    kept = not reasons
    name, told = task.task.id, candidate.conditioning
    label = [one for one in plan.findings if one.status == "present"]
    nearest = critique.nearest_training
    return Row(
        id=name,
        attempt=attempt.attempt,
        path=settled_name(name, attempt.attempt, kept),
        accepted=critique.accepted,
        reasons=reasons,
        modality=plan.modality,
        prompt=task.task.prompt,
        drawn_prompt=told.prompt,
        label=_label(plan),
        findings=critique.findings,
        codes=[one.code for one in label if one.code],
        plan=plan,
        side=_joined(label, "side"),
        severity=_joined(label, "severity"),
        view=plan.view,
        age=plan.age,
        sex=plan.sex,
        quality=critique.quality,
        nearest_distance=nearest.distance if nearest else None,
        nearest_percentile=nearest.percentile if nearest else None,
        score=critique.score,
        control_score=control,
        seed=told.seed,
        steps=told.steps or hello.steps,
        guidance=hello.guidance if told.guidance_scale is None else told.guidance_scale,
        rounds=task.rounds or 1,
        generator=hello.fingerprint,
        verifier=hello.panel,
        adapter=hello.adapter,
        sha256=attempt.sha256,
        width=attempt.width,
        height=attempt.height,
        group=name,
    )


def _label(plan: Plan) -> str:
    from medgen.knowledge.cards import finding_cards

    cards = finding_cards().get(plan.modality, {})
    shown = [one.finding for one in plan.findings if one.status == "present"]
    abnormal = [name for name in shown if name not in cards or cards[name].kind == "abnormal"]
    return "; ".join(abnormal) or NORMAL


def _joined(findings: list[Finding], name: str) -> str | None:
    said = [getattr(finding, name) for finding in findings]
    return "; ".join(dict.fromkeys(value for value in said if value)) or None


def sweep(journal: Journal, store: Store) -> int:
    """Remove images that the journal does not know: leftovers of kills. Returns how many."""
    removed = 0
    for folder in (IMAGES, REJECTED):
        for name in store.names(folder):
            if not _known(journal, name):
                store.remove(name)
                removed += 1
    return removed


def _known(journal: Journal, name: str) -> bool:
    folder, _, file = name.split("/", 2)
    stem = file.removesuffix(".png")
    if stem == file:
        return False
    if folder == IMAGES:
        return journal.is_kept(stem)
    task, _, attempt = stem.rpartition("_")
    return attempt.isdigit() and journal.is_rejected(task, int(attempt))

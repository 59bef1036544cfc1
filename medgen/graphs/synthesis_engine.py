"""The engine of a dataset: deals tasks to workers, writes the journal, fills the quotas.

One process; workers are told no more than they can hold, and what they did is in the journal
before they are told more. Which tasks a cell is given follows from that cell's own outcomes, wave
by wave, so neither the number of workers nor their speed changes the dataset.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from medgen.data.dataset_layout import image_name
from medgen.errors import BadInput, MedgenError
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.synthesis_cells import Cell, draws_control, task_seed
from medgen.graphs.synthesis_crew import Crew, Lost, Refused
from medgen.graphs.synthesis_journal import Journal, TaskRow
from medgen.graphs.synthesis_manifest import choose, few_words, place_turned_down
from medgen.graphs.synthesis_spec import Spec
from medgen.graphs.synthesis_store import Store
from medgen.graphs.synthesis_tasks import Reasoned, Task, reason_about
from medgen.graphs.synthesis_worker import Admission, Hello, Order, Report

BATCHES_AHEAD = 4
STARTS = 3
PATIENCE = 0.5
NOTED_EVERY = 10.0


@dataclass
class Progress:
    """How far a run is: images wanted and kept, tasks, candidates, and this process's seconds.

    `reasons` counts why candidates were turned down; `work` is workers' seconds by kind.
    """

    wanted: int
    kept: int = 0
    settled: int = 0
    drawn: int = 0
    quarantined: int = 0
    near_copies: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    workers: int = 0
    seconds: float = 0.0
    kept_now: int = 0
    work: dict[str, float] = field(default_factory=dict)

    def worked(self, kind: str, seconds: float) -> None:
        """Count a worker's seconds."""
        self.work[kind] = self.work.get(kind, 0.0) + seconds

    @property
    def seconds_left(self) -> float | None:
        """By this process's rate so far; None before there is one."""
        if not self.kept_now:
            return None
        return max(0, self.wanted - self.kept) * self.seconds / self.kept_now


OnProgress = Callable[[Progress], None]


@dataclass
class _Desk:
    """One worker as the engine sees it."""

    ready: bool = False
    busy_since: float | None = None
    active: set[str] = field(default_factory=set)
    announced: tuple[str, ...] = ()
    starts: int = 1


def first_hello(crew: Crew) -> tuple[int, Hello]:
    """Start the crew; the first worker that is ready.

    Raises:
        BadInput: A worker cannot load what it needs.
        MedgenError: Workers die before they are ready.
    """
    for worker in range(crew.size):
        crew.start(worker)
    died = 0
    while True:
        for worker, message in crew.receive(PATIENCE):
            if isinstance(message, Hello):
                return worker, message
            died = _started_badly(crew, worker, message, died)


def _started_badly(crew: Crew, worker: int, message: object, died: int) -> int:
    if isinstance(message, Refused):
        raise message.error
    if isinstance(message, Lost):
        if died + 1 >= STARTS * crew.size:
            raise MedgenError(f"workers die before they are ready: {message.why}")
        crew.start(worker)
    return died + 1


class Engine:
    """Runs a dataset's tasks until the quotas are met or the budget ends.

    Args:
        journal: Of the run.
        store: Where images lie.
        crew: Started workers.
        spec: What is to be made.
        cells: In the order of the journal's; empty for a table of prompts.
        minds: What the reasoning uses.
        ready: The worker that has said hello already, and its hello.
        on_progress: Told now and then how far the run is.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        crew: Crew,
        spec: Spec,
        cells: Sequence[Cell],
        minds: Collaborators,
        ready: tuple[int, Hello],
        on_progress: OnProgress = lambda _progress: None,
    ) -> None:
        self._journal, self._store, self._crew, self._spec = journal, store, crew, spec
        self._cells, self._minds, self._on_progress = cells, minds, on_progress
        self._hello = ready[1]
        self._desks = {worker: _Desk() for worker in range(crew.size)}
        self._desks[ready[0]].ready = True
        self._cell_of: dict[str, int] = {}
        self._reasoned: dict[tuple[str, str | None], Reasoned] = {}
        self._draining: int | None = None
        self._died_early = 0
        self._started = self._noted = time.monotonic()
        self.progress = self._counted()
        self._session = 0

    def _counted(self) -> Progress:
        quotas, counts = self._journal.quotas(), self._journal.counts()
        return Progress(
            wanted=sum(quota.wanted for quota in quotas),
            kept=sum(quota.kept for quota in quotas),
            settled=counts["settled"],
            drawn=counts["drawn"],
            quarantined=counts["quarantined"],
            near_copies=counts["near copies"],
            reasons=Counter(self._journal.reasons()),
        )

    def run(self, session: int) -> bool:
        """Work until everything is done or the hours are over.

        Args:
            session: The journal's number of this process's work.

        Returns:
            Whether everything is done: no cell wants more, or none may have more.

        Raises:
            MedgenError: The disk is full, the journal cannot be written, workers cannot start.
        """
        self._session = session
        for quota in self._journal.quotas(open_only=True):
            if not quota.waiting:
                self._next_wave(quota.position)
        limit = self._spec.budget.hours
        while self._left():
            self.progress.seconds = time.monotonic() - self._started
            if limit is not None and self.progress.seconds > limit * 3600:
                self._note(final=True)
                return False
            for worker, desk in self._desks.items():
                if desk.ready and desk.busy_since is None:
                    self._give(worker, desk)
            for worker, message in self._crew.receive(PATIENCE):
                self._heard(worker, message)
            self._end_the_slow()
            self._note()
        self._note(final=True)
        return True

    def _left(self) -> bool:
        return bool(self._journal.next_tasks(1, ()))

    def _held(self) -> list[str]:
        return [task for desk in self._desks.values() for task in desk.active]

    def _give(self, worker: int, desk: _Desk) -> None:
        """Tell a worker what to do next, as many new tasks as it has room for."""
        suspects = self._journal.suspects(self._held())
        if suspects and self._draining is None:
            self._draining = worker
        if not suspects:
            self._draining = None
        if self._draining == worker:
            # Nothing new until it is empty; then one suspect, with nothing else.
            rows = suspects[:1] if not desk.active else []
            self._order(worker, desk, rows, flush=True, alone=True)
            return
        room = BATCHES_AHEAD * self._hello.micro_batch - len(desk.active)
        held = [*self._held(), *(row.task.id for row in suspects)]
        rows = self._journal.next_tasks(room, held) if room > 0 else []
        self._order(worker, desk, rows, flush=len(rows) < room)

    def _order(
        self, worker: int, desk: _Desk, rows: list[TaskRow], *, flush: bool, alone: bool = False
    ) -> None:
        new = []
        for row in rows:
            reasoned = self._reason(row)
            if reasoned is None:
                continue
            earlier = self._journal.attempts(row.task.id)
            new.append(Admission(row.task, reasoned, earlier, alone))
            desk.active.add(row.task.id)
            self._cell_of[row.task.id] = row.cell
        if not new and not desk.active:
            return
        desk.busy_since = time.monotonic()
        self._crew.send(worker, Order(new, flush))

    def _reason(self, row: TaskRow) -> Reasoned | None:
        key = (row.task.prompt, row.task.modality)
        if key in self._reasoned:
            return self._reasoned[key]
        found = self._journal.reasoned(*key)
        if found is None:
            clock = time.monotonic()
            try:
                found = reason_about(*key, self._minds)
            except BadInput as error:  # it would fail again
                self._journal.failed([row.task.id], str(error), retries=0)
                self._over([row.task.id], row.cell)
                return None
            self._journal.keep_reasoned(*key, found)
            self.progress.worked("reason", time.monotonic() - clock)
        if len(self._reasoned) >= 4096:
            self._reasoned.clear()
        self._reasoned[key] = found
        return found

    def _heard(self, worker: int, message: object) -> None:
        desk = self._desks[worker]
        if isinstance(message, Hello):
            if message != self._hello:
                raise MedgenError(
                    f"worker {worker} draws with {message.generator} and verifies with "
                    f"{message.panel}, not {self._hello.generator} and {self._hello.panel}: "
                    "install the same weights and settings everywhere"
                )
            desk.ready, self._died_early = True, 0
        elif isinstance(message, Report):
            self._take(desk, message)
        elif isinstance(message, Lost):
            if not desk.ready:
                self._died_early = _started_badly(self._crew, worker, message, self._died_early)
                return
            self._lose(worker, message.why, message.blameless)
        elif isinstance(message, Refused):
            raise message.error

    def _take(self, desk: _Desk, report: Report) -> None:
        if report.fatal is not None:
            raise MedgenError(f"{report.fatal}: make room, then go on with --resume")
        reasons = [
            few_words(one.candidate.critique) if one.candidate.critique and not one.kept else ""
            for one in report.attempts
        ]
        aside = self._journal.record(report, reasons, self._spec.budget.retries)
        progress = self.progress
        progress.drawn += len(report.attempts)
        progress.reasons.update(reason for reason in reasons if reason)
        progress.settled += len(report.settled)
        for kind, seconds in report.seconds.items():
            progress.worked(kind, seconds)
        accepted = sum(one.accepted is not None for one in report.settled)
        progress.kept += accepted
        progress.kept_now += accepted
        desk.busy_since, desk.active = None, set(report.active)
        desk.announced = report.announced
        over = [one.task for one in report.settled]
        cells = {self._cell_of[task] for task in (*over, *aside)}
        progress.quarantined += len(aside)
        for task in (*over, *aside):
            self._cell_of.pop(task, None)
        for cell in sorted(cells):
            self._perhaps_next_wave(cell)

    def _lose(self, worker: int, why: str, blameless: bool = False) -> None:
        """A worker is gone: its batch's tasks are suspects, its other tasks wait again."""
        suspects = () if blameless else self._desks[worker].announced
        aside = self._journal.failed(suspects, why, self._spec.budget.retries)
        self._desks[worker] = _Desk()
        self._crew.start(worker)
        for task in aside:
            self._over([task], self._cell_of.pop(task))

    def _over(self, aside: list[str], cell: int) -> None:
        self.progress.quarantined += len(aside)
        self._perhaps_next_wave(cell)

    def _end_the_slow(self) -> None:
        now = time.monotonic()
        for worker, desk in self._desks.items():
            limit = self._spec.budget.timeout
            if desk.busy_since is not None and now - desk.busy_since > limit:
                self._crew.stop(worker)
                self._lose(worker, f"took longer than {limit:.0f} seconds")
                return

    def _perhaps_next_wave(self, cell: int) -> None:
        if not self._journal.waits(cell):
            self._next_wave(cell)

    def _next_wave(self, cell: int) -> None:
        """All tasks of a cell are over: turn near copies down, start more tasks or close it."""
        quota, spec = self._journal.quota(cell), self._spec
        if not self._cells:  # a table: every prompt is one task
            self._journal.close_cell(cell, [])
            return
        accepted = list(self._journal.accepted(cell))
        down = choose(accepted, quota.modality, None, spec.diversity.near_copies).turned_down
        if down:
            self._journal.turn_down(down)
            place_turned_down(
                self._store,
                {row.task.id: row.accepted for row, _ in accepted if row.task.id in down},
            )
            self.progress.kept -= len(down)
            self.progress.near_copies += len(down)
        kept = len(accepted) - len(down)
        target = math.ceil(quota.wanted * spec.diversity.pool)
        most = max(target, math.ceil(quota.wanted * spec.budget.tasks_an_image))
        more = min(target - kept, most - quota.started)
        if more > 0:
            tasks = self._tasks(self._cells[cell], quota.started, more)
            self._journal.start_tasks(cell, tasks, quota.started)
            return
        left = [(row, attempt) for row, attempt in accepted if row.task.id not in down]
        spare = choose(left, quota.modality, quota.wanted, near_copies=False).spare
        self._journal.close_cell(cell, spare)
        self.progress.kept -= len(spare)
        for task in spare:
            self._store.remove(image_name(task))

    def _tasks(self, cell: Cell, first: int, count: int) -> Iterator[Task]:
        for number in range(first, first + count):
            name = cell.task_id(number)
            yield Task(
                id=name,
                prompt=cell.prompt(self._spec.seed, number),
                modality=cell.modality,
                seed=task_seed(self._spec.seed, name),
                control=draws_control(self._spec, name),
            )

    def _note(self, final: bool = False) -> None:
        now = time.monotonic()
        self.progress.seconds = now - self._started
        self.progress.workers = sum(desk.ready for desk in self._desks.values())
        self._on_progress(self.progress)
        if final or now - self._noted > NOTED_EVERY:
            self._noted = now
            self._journal.note_session(
                self._session, self.progress.seconds, dict(self.progress.work)
            )

"""Runs that wait, the one that is drawn, and how they get on; one worker takes them in order.

A job is a run's folder from the moment it is accepted, with a mark beside the run's own files that
says how it stands, so that a server which was killed takes up what it had promised. Only jobs that
are not ended are held in memory. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from filelock import FileLock, Timeout
from pydantic import ValidationError

from medgen.data.images import write_atomic
from medgen.errors import BadInput, Cancelled, MedgenError
from medgen.graphs.agent import Agent
from medgen.graphs.results import RunResult
from medgen.graphs.run_folder import RUN, RunFolder
from medgen.graphs.runs import load_run
from medgen.records import Record, Request, TraceEvent

MARK = "serve.json"
LOCK = ".medgen-serve.lock"
PATIENCE = 20.0

Status = Literal["queued", "running", "finished", "cancelled", "failed"]
log = logging.getLogger(__name__)


class QueueFull(MedgenError):
    """As many runs wait as this server lets wait."""


class Stopping(Cancelled):
    """The server goes down; the run goes on when it is back."""


class Mark(Record):
    """How a job stands, beside the run's files; there is none any more once it is finished."""

    status: Status
    error: str | None = None


@dataclass(eq=False)
class Job:
    """One run on its way: what has happened so far, and who wants to be told of more."""

    folder: RunFolder
    status: Status = "queued"
    error: str | None = None
    node: str | None = None
    events: list[TraceEvent] = field(default_factory=list)
    unwanted: bool = False
    _watchers: set[Callable[[], object]] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status not in ("queued", "running")

    @contextmanager
    def watched(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that is set whenever something has changed."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        watcher = partial(loop.call_soon_threadsafe, changed.set)
        self._watchers.add(watcher)
        try:
            yield changed
        finally:
            self._watchers.discard(watcher)

    def tell(self) -> None:
        """Wake all watchers; from any thread."""
        for watcher in list(self._watchers):
            with suppress(RuntimeError):  # its loop is closed
                watcher()


class Ended(Protocol):
    """Told of each job that ended, with its result if it is finished."""

    def __call__(self, job: Job, result: RunResult | None) -> None:
        """Take note."""


class Jobs:
    """The queue of one folder of runs, and the worker that empties it.

    Args:
        agent: What runs them.
        runs: Folder that receives one folder a run; nobody else's queue may use it.
        most: How many may wait.
        on_end: Told of each job that ended.
    """

    def __init__(self, agent: Agent, runs: Path, most: int, on_end: Ended) -> None:
        self.agent, self.runs, self.most = agent, runs.expanduser().resolve(), most
        self.active: dict[str, Job] = {}
        self._on_end = on_end
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self.ready = False
        self._worker = threading.Thread(target=self._work, name="medgen-worker", daemon=True)
        self._lock = FileLock(self.runs / LOCK, thread_local=False)

    def claim(self) -> None:
        """Take the folder for this queue alone; taking it again changes nothing.

        Raises:
            BadInput: The folder cannot be written, or another server has it.
        """
        if self._lock.is_locked:
            return
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise BadInput(
                f"another medgen serve works in {self.runs}: stop it, or give another --runs"
            ) from error
        except OSError as error:
            raise BadInput(
                f"cannot write to {self.runs} ({error.strerror}): choose a folder with --runs"
            ) from error

    def start(self) -> None:
        """Queue what an earlier server left, and begin to work."""
        self.claim()
        for job in self._left():
            self.active[job.folder.run_id] = job
            self._waiting.append(job)
        self._worker.start()

    def _left(self) -> Iterator[Job]:
        """Jobs that an earlier server accepted and did not end, oldest first."""
        for mark in sorted(self.runs.glob(f"*/{MARK}")):
            try:
                status = Mark.model_validate_json(mark.read_bytes()).status
                if status not in ("queued", "running"):
                    continue
                if (mark.parent / RUN).is_file():
                    mark.unlink()
                    continue
                folder = RunFolder.open(mark.parent)
            except (BadInput, ValidationError, OSError) as error:
                log.warning("run %s is not taken up again: %s", mark.parent.name, error)
                continue
            job = Job(folder)
            with suppress(BadInput):  # no checkpoint yet: it starts from the beginning
                job.events = load_run(folder).events
            yield job

    def stop(self) -> None:
        """Stop after the step that is being worked on; what is not ended is kept for later."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for job in list(self.active.values()):
            job.tell()
        self._worker.join(PATIENCE)
        self._lock.release(force=True)

    @property
    def stopping(self) -> bool:
        """Whether the server goes down."""
        return self._stopping

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def ahead(self, job: Job) -> int | None:
        """How many jobs come before one that waits, that being drawn included; None otherwise."""
        with self._changed:
            if job not in self._waiting:
                return None
            drawn = sum(one.status == "running" for one in self.active.values())
            return self._waiting.index(job) + drawn

    def submit(self, request: Request) -> Job:
        """Accept a run: it has a folder on return, and its turn comes.

        Raises:
            QueueFull: Too many wait.
            BadInput: Its folder cannot be made.
            MedgenError: Its folder cannot be written to.
        """
        with self._changed:
            if len(self._waiting) >= self.most:
                raise QueueFull(f"{self.most} runs wait already: try again later")
            job = Job(RunFolder.create(request))
            try:
                _mark(job.folder, "queued")
            except OSError as error:
                raise MedgenError(f"a run's folder cannot be written ({error.strerror})") from error
            self.active[job.folder.run_id] = job
            self._waiting.append(job)
            self._changed.notify_all()
            return job

    def cancel(self, job: Job) -> None:
        """End a job: at once when it waits, after the step it is in when it is drawn."""
        with self._changed:
            job.unwanted = True
            if job not in self._waiting:
                return
            self._waiting.remove(job)
            self._end(job, "cancelled")

    def _work(self) -> None:
        self._load()
        while (job := self._next()) is not None:
            try:
                self._run(job)
            except Exception:
                log.exception("run %s: its end could not be written", job.folder.run_id)

    def _load(self) -> None:
        minds = self.agent.collaborators
        try:
            with minds.turn:
                _ = minds.generator, minds.panel, minds.store, minds.cases
            self.ready = True
        except MedgenError as error:
            log.error("nothing can be drawn: %s", error)
        except Exception:  # each run tries again, and says why it failed
            log.exception("the models could not be loaded")

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            if self._stopping:
                return None
            job = self._waiting.popleft()
            job.status = "running"
        return job

    def _run(self, job: Job) -> None:
        def started(node: str) -> None:
            self._go_on(job)
            job.node = node
            job.tell()

        def ended(event: TraceEvent) -> None:
            job.events.append(event)
            job.tell()
            self._go_on(job)

        try:
            _mark(job.folder, "running")
            job.tell()
            result = self.agent.run(resume=job.folder.path, on_start=started, on_event=ended)
        except Stopping:
            return
        except Cancelled:
            self._end(job, "cancelled")
        except MedgenError as error:
            self._end(job, "failed", str(error))
        except OSError as error:
            self._end(job, "failed", f"its folder cannot be written ({error.strerror})")
        except Exception as error:  # a fault of ours: the next run may go well
            log.exception("run %s failed", job.folder.run_id)
            self._end(job, "failed", f"{type(error).__name__}: {error}")
        else:
            self._end(job, "finished", result=result)

    def _go_on(self, job: Job) -> None:
        if job.unwanted:
            raise Cancelled(f"run {job.folder.run_id} was cancelled")
        if self._stopping:
            raise Stopping("the server goes down")

    def _end(
        self, job: Job, status: Status, error: str | None = None, result: RunResult | None = None
    ) -> None:
        try:
            _mark(job.folder, status, error)
        finally:
            job.error, job.node = error, None
            job.status = status  # last: who sees that it ended may read why
            self.active.pop(job.folder.run_id, None)
            job.tell()
            self._on_end(job, result)


def read_mark(folder: Path) -> Mark | None:
    """How a run of this or an earlier server stands; None where no server has marked it."""
    try:
        return Mark.model_validate_json((folder / MARK).read_bytes())
    except (OSError, ValidationError):
        return None


def _mark(folder: RunFolder, status: Status, error: str | None = None) -> None:
    path = folder.path / MARK
    if status == "finished":
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, Mark(status=status, error=error).model_dump_json())

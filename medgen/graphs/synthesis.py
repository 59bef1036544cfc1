"""Makes a dataset from a specification: checks it, starts workers, runs the engine, writes it all.

The folder that comes out is described in docs/synthesis.md. A run may be killed at any moment and
gone on with; what is finished then is not done again, and the dataset is the same.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from medgen.data.dataset_rows import PARQUET, TABLE, write_manifest
from medgen.errors import BadInput, MedgenError
from medgen.generator.backends import available_cores
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.graphs.synthesis_cells import Cell, draws_control, expand, task_seed
from medgen.graphs.synthesis_checks import (
    Checked,
    check_cells,
    check_table,
    measured_by,
    read_table,
)
from medgen.graphs.synthesis_crew import Crew, LocalCrew, Minds
from medgen.graphs.synthesis_engine import Engine, OnProgress, Progress, first_hello
from medgen.graphs.synthesis_journal import JOURNAL, Journal
from medgen.graphs.synthesis_manifest import place_turned_down, rows, sweep
from medgen.graphs.synthesis_spec import Source, resolved
from medgen.graphs.synthesis_store import Store, disk_is_full, is_remote, open_store
from medgen.graphs.synthesis_tasks import Task
from medgen.graphs.synthesis_worker import Hello, Setup
from medgen.records import Record
from medgen.settings import Settings, settings

Place = Literal["local", "ray"]
BACKUP_SECONDS = 300.0
BATCH = 4
SPEC, PROMPTS, DATASET = "spec.yaml", "prompts.csv", "dataset.json"
FORMAT = 1


class Outcome(Record):
    """What became of a run.

    `complete` says that no cell wants more or may have more; `unmet` are the cells with fewer
    images than wanted, with both numbers. `seconds` is this process's time, `kept_now` the images
    that it made.
    """

    folder: str
    complete: bool
    wanted: int
    kept: int
    drawn: int
    near_copies: int
    quarantined: dict[str, str]
    reasons: dict[str, int]
    unmet: dict[str, tuple[int, int]]
    seconds: float
    kept_now: int
    warnings: dict[str, int]


class Job:
    """A checked specification and where its dataset goes; makes nothing yet.

    Args:
        spec: A YAML specification or a CSV of prompts.
        out: A folder, or a URL that fsspec writes.
        seed: Over the specification's.
        minds: The caller's own; this process's when None.

    Raises:
        BadInput: The specification cannot be used; says on which lines.
    """

    def __init__(
        self,
        spec: str | Path,
        out: str | Path,
        seed: int | None = None,
        minds: Collaborators | None = None,
    ) -> None:
        self.source = Source(spec, seed)
        self.spec = self.source.spec
        self.out = str(out)
        self.minds = minds or shared_collaborators()
        self.cells: list[Cell] = []
        measurable = measured_by(self.minds.panel)
        if self.source.table is not None:
            self.checked: Checked = check_table(self.source, self.source.table, measurable)
            self.wanted = sum(self.checked.modalities.values())
        else:
            self.cells = expand(self.source)
            self.checked = check_cells(self.source, self.cells, measurable)
            self.wanted = sum(cell.wanted for cell in self.cells)

    def check_drawable(self, hello: Hello) -> None:
        """Refuse modalities that the generator cannot draw.

        Raises:
            BadInput: One of them is such.
        """
        for modality in self.checked.modalities:
            if modality not in hello.modalities:
                raise BadInput(
                    f"{hello.generator} cannot draw {modality}: it can draw "
                    + ", ".join(hello.modalities)
                )

    def tasks_of_table(self) -> Iterator[Task]:
        """The tasks of a table of prompts, in its order."""
        assert self.source.table is not None
        for asked in read_table(self.source, self.source.table):
            yield Task(
                id=asked.id,
                prompt=asked.prompt,
                modality=asked.modality,
                seed=task_seed(self.spec.seed, asked.id),
                control=draws_control(self.spec, asked.id),
            )


def worker_options(options: Settings) -> Settings:
    """A worker's settings: one thread and larger batches, unless the user set other numbers.

    Threads and batches are fixed so that bytes repeat; small batches suit single images, and
    workers have many.
    """
    batch = options.micro_batch if "micro_batch" in options.model_fields_set else BATCH
    return options.model_copy(update={"threads": options.threads or 1, "micro_batch": batch})


def synthesize(
    spec: str | Path,
    out: str | Path,
    *,
    seed: int | None = None,
    workers: int | None = None,
    engine: Place = "local",
    address: str | None = None,
    resume: bool = False,
    on_progress: OnProgress = lambda _progress: None,
    on_checked: Any = lambda _job: None,
    minds: Minds | None = None,
) -> Outcome:
    """Make a dataset, or go on with one.

    Args:
        spec: A YAML specification, or a CSV of prompts with `id,prompt,modality`.
        out: The dataset's folder, not there yet or empty; or a URL that fsspec writes.
        seed: Over the specification's. The same specification, seed, weights and settings give
            the same images and manifest on one kind of processor.
        workers: How many workers; one a core when None. Does not change the dataset.
        engine: "local" processes, or "ray" actors.
        address: Of the Ray cluster; one of this machine is started when None.
        resume: Go on where an interrupted run stopped.
        on_progress: Told now and then how far the run is.
        on_checked: Told the checked job before any work.
        minds: Makes the collaborators of each worker and of the reasoning from settings, importable
            by name; the bundled ones when None.

    Raises:
        BadInput: The specification or folder cannot be used; nothing was written.
        MedgenError: The run stopped; it can be gone on with.
    """
    options = settings()
    own = minds(worker_options(options)) if minds else None
    job = Job(spec, out, seed, own)
    on_checked(job)
    journal_path = journal_place(job.out)
    store = open_store(job.out)
    _require_place(job, store, journal_path, resume)
    setup = Setup(job.spec, job.out, worker_options(options))
    with _room(job.out), ExitStack() as stack:
        stack.enter_context(_locked(journal_path))
        crew = _crew(engine, address, workers, setup, minds)
        stack.callback(crew.close)
        ready = first_hello(crew)
        job.check_drawable(ready[1])
        journal = _journal(job, store, journal_path, ready[1])
        stack.callback(journal.close)
        session = journal.begin_session(datetime.now(UTC).isoformat("T", "seconds"), crew.size)
        if is_remote(job.out):
            on_progress = _backing_up(journal, store, on_progress)
        runner = Engine(journal, store, crew, job.spec, job.cells, job.minds, ready, on_progress)
        complete = runner.run(session)
        _finish(job, journal, store, ready[1], complete)
        _write_card(job, journal)
        return _outcome(job, journal, runner, complete)


@contextmanager
def _room(out: str) -> Iterator[None]:
    """Say in one line that the disk is full, wherever that came out."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if disk_is_full(error) or isinstance(error, sqlite3.Error):
            reason = "is full" if disk_is_full(error) else f"cannot be written ({error})"
            raise MedgenError(
                f"the disk of {out} {reason}: make room, then go on with --resume"
            ) from error
        raise


def journal_place(out: str) -> Path:
    """Where the journal of a dataset lies: in its folder, or for a URL in the user's cache."""
    if not is_remote(out):
        return Path(out.removeprefix("file://")).expanduser().resolve() / JOURNAL
    import hashlib

    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(out.rstrip("/").encode()).hexdigest()[:16]
    return Path(cache) / "medgen" / "synthesis" / name / JOURNAL


def _require_place(job: Job, store: Store, journal: Path, resume: bool) -> None:
    """Refuse a place that holds something else, before anything is loaded.

    Raises:
        BadInput: It is taken, cannot be written, or holds another run.
    """
    if is_remote(job.out):
        if not journal.is_file() and resume and store.exists(JOURNAL):
            journal.parent.mkdir(parents=True, exist_ok=True)
            from medgen.data.images import write_atomic

            write_atomic(journal, store.read(JOURNAL))
        taken = store.exists(DATASET) or journal.is_file()
    else:
        folder = journal.parent
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            raise BadInput(f"cannot write to {job.out}: choose a folder with --out")
        taken = folder.is_dir() and any(
            not path.name.startswith(f".{JOURNAL}") and path.name != f"{JOURNAL}.lock"
            for path in folder.iterdir()
        )
    if taken and not resume:
        raise BadInput(
            f"{job.out} is not empty: go on with that run with --resume, or choose another --out"
        )
    if taken and not journal.is_file():
        raise BadInput(f"{job.out} holds no run to go on with ({JOURNAL} is missing)")


@contextmanager
def _locked(journal: Path) -> Iterator[None]:
    made = [path for path in (journal.parent, *journal.parent.parents) if not path.exists()]
    journal.parent.mkdir(parents=True, exist_ok=True)
    place = journal.with_name(f"{JOURNAL}.lock")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadInput(f"another process works in {journal.parent}: wait for it") from error
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.release()
        if not any(journal.parent.iterdir()):  # nothing came of it
            for path in made:
                path.rmdir()


def _crew(
    engine: Place, address: str | None, workers: int | None, setup: Setup, minds: Minds | None
) -> Crew:
    if engine == "ray":
        from medgen.graphs.synthesis_ray import RayCrew

        crew: Crew = RayCrew(workers, setup, address, minds)
        return crew
    if address is not None:
        raise BadInput("--address is for --engine ray: give both or neither")
    return LocalCrew(workers or available_cores(), setup, minds)


def _backing_up(journal: Journal, store: Store, on_progress: OnProgress) -> OnProgress:
    """Also copies the journal to the dataset's place now and then, for another machine to go on."""
    last = time.monotonic()

    def told(progress: Progress) -> None:
        nonlocal last
        on_progress(progress)
        if time.monotonic() - last > BACKUP_SECONDS:
            store.write(JOURNAL, journal.copy())
            last = time.monotonic()

    return told


def _described(job: Job, hello: Hello) -> dict[str, Any]:
    """What a dataset depends on beside time."""
    return {
        "spec_sha256": job.source.sha256,
        "seed": job.spec.seed,
        "medgen": metadata.version("medgen"),
        "generator": {"name": hello.generator, "fingerprint": hello.fingerprint},
        "adapter": hello.adapter,
        "verifier": hello.panel,
        "selector": hello.selector,
        "refiner": hello.refiner,
        "micro_batch": hello.micro_batch,
        "threads": hello.threads,
    }


def _journal(job: Job, store: Store, path: Path, hello: Hello) -> Journal:
    described = _described(job, hello)
    if path.is_file():
        journal = Journal(path)
        for name, value in described.items():
            before = journal.meta(name)
            if before != value:
                journal.close()
                what = "specification or seed" if name == "spec_sha256" else name
                raise BadInput(
                    f"{job.out} was begun with another {what} ({_short(before)}, not "
                    f"{_short(value)}): use the same, or choose another --out"
                )
    else:
        cells = [(i, cell.id, cell.modality, cell.wanted) for i, cell in enumerate(job.cells)]
        created = datetime.now(UTC).isoformat("T", "seconds")
        journal = Journal.create(
            path, {**described, "created": created}, cells or [(0, "table", "", job.wanted)]
        )
    if job.source.table is not None and journal.quota(0).started == 0:
        journal.start_tasks(0, job.tasks_of_table(), 0)
    if job.source.table is not None and not store.exists(PROMPTS):
        store.write(PROMPTS, job.source.table.read_bytes())
    store.write(SPEC, resolved(job.spec).encode())  # the hours of this run may be others
    return journal


def _short(value: Any) -> str:
    return json.dumps(value)[:40]


def _finish(job: Job, journal: Journal, store: Store, hello: Hello, complete: bool) -> None:
    """Write what a finished run leaves; may be done again."""
    down = {t.task.id: t.accepted for t in journal.tasks() if t.turned_down is not None}
    place_turned_down(store, down)
    if complete:
        sweep(journal, store)
        store.clear_work()
    with tempfile.TemporaryDirectory(prefix="medgen-") as staged:
        folder = Path(staged) if is_remote(job.out) else journal.path.parent
        write_manifest(folder, rows(journal, hello))
        if is_remote(job.out):
            for name in (PARQUET, TABLE):
                store.write(name, (folder / name).read_bytes())
            store.write(JOURNAL, journal.copy())
    quotas = journal.quotas()
    told = {
        "format": FORMAT,
        **_described(job, hello),
        "created": journal.meta("created"),
        "complete": complete,
        "wanted": sum(quota.wanted for quota in quotas),
        "accepted": sum(quota.kept for quota in quotas),
    }
    store.write(DATASET, (json.dumps(told, indent=2) + "\n").encode())


def _write_card(job: Job, journal: Journal) -> None:
    """Write the datasheet of a dataset in a folder; for a URL, `medgen dataset card` of a copy."""
    if not is_remote(job.out):
        from medgen.graphs.datasheet import write_card

        write_card(journal.path.parent)


def _outcome(job: Job, journal: Journal, runner: Engine, complete: bool) -> Outcome:
    quotas, counts = journal.quotas(), journal.counts()
    from medgen.graphs.synthesis_journal import QUARANTINED

    return Outcome(
        folder=job.out if is_remote(job.out) else str(journal.path.parent),
        complete=complete,
        wanted=sum(quota.wanted for quota in quotas),
        kept=sum(quota.kept for quota in quotas),
        drawn=counts["drawn"],
        near_copies=counts["near copies"],
        quarantined={row.task.id: row.error or "" for row in journal.tasks(QUARANTINED)},
        reasons=journal.reasons(),
        unmet={q.id: (q.kept, q.wanted) for q in quotas if q.kept < q.wanted},
        seconds=round(runner.progress.seconds, 1),
        kept_now=runner.progress.kept_now,
        warnings=dict(job.checked.warnings.most_common()),
    )

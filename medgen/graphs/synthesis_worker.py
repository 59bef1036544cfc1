"""A worker of a dataset: draws and verifies the candidates of many tasks together, a batch a step.

Models are loaded once. A step draws one micro-batch of fixed shape, filled from whatever tasks
have candidates of one kind waiting; a picture's bytes do not depend on what is drawn beside it,
so they do not depend on how tasks were dealt to workers either. Each step says which tasks the
next one will draw, so that whoever watches knows whom to blame if the worker dies in it. Knows no
journal and no other worker.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medgen.data.dataset_layout import image_name, rejected_name, settled_name
from medgen.data.images import png_bytes, square
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.run_folder import CANDIDATES
from medgen.graphs.synthesis_spec import Spec
from medgen.graphs.synthesis_store import (
    disk_is_full,
    open_store,
    work_name,
)
from medgen.graphs.synthesis_tasks import Attempt, Reasoned, Task, TaskRun
from medgen.measure.memorisation import bundled_index, reduced
from medgen.records import Candidate, Conditioning, Critique
from medgen.settings import Settings

VERDICTS = {True: "accepted", False: "rejected", None: "not measured"}


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know: the specification, where files go, and the settings."""

    spec: Spec
    out: str
    options: Settings


@dataclass(frozen=True)
class Hello:
    """Who works: what draws, verifies, ranks and refines, and the settings bytes depend on.

    `selector` and `refiner` are names of learned ones; None for the rules.
    """

    generator: str
    fingerprint: str
    adapter: str | None
    panel: str
    selector: str | None
    refiner: str | None
    modalities: tuple[str, ...]
    steps: int
    guidance: float
    micro_batch: int
    threads: int


@dataclass(frozen=True)
class Admission:
    """A task for a worker, with the attempts of an interrupted run.

    A task that is drawn `alone` shares no batch: it failed before.
    """

    task: Task
    reasoned: Reasoned
    earlier: list[Attempt] = field(default_factory=list)
    alone: bool = False


@dataclass(frozen=True)
class Order:
    """What a worker is to do next; `flush` when it shall not wait for more tasks."""

    new: list[Admission]
    flush: bool = False


@dataclass(frozen=True)
class Settled:
    """A task that is done: which attempt was accepted (None for none), and why."""

    task: str
    accepted: int | None
    rounds: int
    why: str


@dataclass(frozen=True)
class Report:
    """What a step did; `seconds` by kind of work, and of processor time in all.

    `announced` are the tasks that the next step will draw, `active` all that the worker holds.
    `fatal` says why the worker cannot go on, for reasons that are not a task's.
    """

    attempts: list[Attempt] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    announced: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    fatal: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)


Waiting = tuple[TaskRun, Candidate]


class Worker:
    """Holds some tasks and takes them on, a batch a step.

    Args:
        setup: What to make.
        minds: A generator and panel of the caller's own; loaded by the settings when None.
    """

    def __init__(self, setup: Setup, minds: Collaborators | None = None) -> None:
        self._setup, self._spec = setup, setup.spec
        self._minds = minds or Collaborators(options=setup.options)
        self._store = open_store(setup.out)
        self._scratch = self._store.scratch()
        self._runs: dict[str, TaskRun] = {}
        self._alone: set[str] = set()
        self._next: list[Waiting] = []
        generator: Any = self._minds.generator
        self._batch = int(getattr(generator, "micro_batch", 1))
        self._key: Callable[[Conditioning], Hashable] = getattr(
            generator, "batch_key", lambda _told: None
        )

    def hello(self) -> Hello:
        """Load everything and say who works."""
        generator: Any = self._minds.generator
        return Hello(
            generator=generator.name,
            fingerprint=generator.fingerprint,
            adapter=getattr(generator, "adapter", "") or None,
            panel=self._minds.panel.fingerprint,
            selector=self._minds.reward.name if self._minds.reward else None,
            refiner=self._minds.prompt_policy.name if self._minds.prompt_policy else None,
            modalities=tuple(generator.modalities),
            steps=int(getattr(generator, "steps", self._minds.settings.steps)),
            guidance=float(
                getattr(generator, "guidance_scale", self._minds.settings.guidance_scale)
            ),
            micro_batch=self._batch,
            threads=self._setup.options.threads,
        )

    def step(self, order: Order) -> Report:
        """Admit tasks, draw and verify the announced batch, and choose the next one."""
        attempts: list[Attempt] = []
        settled: list[Settled] = []
        failed: list[tuple[str, str]] = []
        seconds: dict[str, float] = {}
        busy = time.process_time()
        try:
            attempts, settled, failed = self._draw(seconds)
            for admission in order.new:
                self._admit(admission, settled, failed)
        except OSError as error:
            if not disk_is_full(error):
                raise
            return Report(fatal=f"the disk of {self._setup.out} is full")
        self._next = self._choose(order.flush)
        seconds["processor"] = time.process_time() - busy
        return Report(
            attempts,
            settled,
            failed,
            tuple(dict.fromkeys(run.task.id for run, _ in self._next)),
            tuple(self._runs),
            seconds=seconds,
        )

    def _admit(
        self, admission: Admission, settled: list[Settled], failed: list[tuple[str, str]]
    ) -> None:
        task = admission.task
        try:
            folder = self._place(admission)
            run = TaskRun(
                task, admission.reasoned, self._spec, self._minds, folder, admission.earlier
            )
        except Exception as error:  # whatever it is, it is this task's and nobody else's
            failed.append((task.id, f"{type(error).__name__}: {error}"))
            return
        if run.settled:
            settled.append(self._settle(run))
            return
        self._runs[task.id] = run
        if admission.alone:
            self._alone.add(task.id)

    def _choose(self, flush: bool) -> list[Waiting]:
        """The next batch: full if there is one, else what there is when nothing more comes."""
        alone = [self._runs[task] for task in self._alone]
        groups: dict[Hashable, list[Waiting]] = {}
        for run in alone[:1] or self._runs.values():
            for candidate in run.waiting():
                key = self._key(candidate.conditioning)
                groups.setdefault(key, []).append((run, candidate))
        if not groups:
            return []
        largest = max(groups.values(), key=len)
        if len(largest) < self._batch and not (flush or alone):
            return []
        return largest[: self._batch]

    def _draw(
        self, seconds: dict[str, float]
    ) -> tuple[list[Attempt], list[Settled], list[tuple[str, str]]]:
        batch, self._next = self._next, []
        if not batch:
            return [], [], []
        runs = {run.task.id: run for run, _ in batch}
        try:
            clock = time.perf_counter()
            pictures = self._minds.generator.sample([one.conditioning for _, one in batch])
            seconds["draw"] = time.perf_counter() - clock
            clock = time.perf_counter()
            attempts = []
            for (run, candidate), pixels in zip(batch, pictures, strict=True):
                critique = self._verify(run, pixels)
                attempts.append(self._write(run, candidate, critique, pixels))
                run.verified(candidate.id, critique)
            seconds["verify"] = time.perf_counter() - clock
            clock = time.perf_counter()
            for run in runs.values():
                run.advance()
            seconds["decide"] = time.perf_counter() - clock
        except OSError:
            raise
        except Exception as error:  # tried again one by one: then it is known whose it was
            for task in runs:
                self._drop(task)
            return [], [], [(task, f"{type(error).__name__}: {error}") for task in runs]
        settled = [self._settle(run) for run in runs.values() if run.settled]
        return attempts, settled, []

    def _place(self, admission: Admission) -> Path:
        """The folder of a task, with the images of its earlier attempts."""
        task = admission.task.id
        folder = self._scratch / task
        for one in admission.earlier:
            name = work_name(task, one.attempt)
            if not self._store.exists(name):  # settled, but killed before the journal knew
                name = settled_name(task, one.attempt, one.kept)
            self._beside(folder, one.candidate.id, self._store.read(name))
        return folder

    def _beside(self, folder: Path, candidate: str, content: bytes) -> None:
        path = folder / CANDIDATES / f"{candidate}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _verify(self, run: TaskRun, pixels: np.ndarray) -> Critique:
        picture = np.array(square(Image.fromarray(pixels), max(pixels.shape[:2])))
        return run.judged(self._minds.panel.verify(picture, run.plan, generated=True))

    def _write(
        self, run: TaskRun, candidate: Candidate, critique: Critique, pixels: np.ndarray
    ) -> Attempt:
        task, number = run.task.id, run.number(candidate.id)
        keeps = run.keeps(critique)
        tags = {
            "Prompt": run.task.prompt,
            "Drawn prompt": candidate.conditioning.prompt,
            "Seed": str(candidate.conditioning.seed),
            "Task": f"{task} {number}",
            "Generator": f"{self._minds.generator.name} {self._minds.generator.fingerprint}",
            "Verdict": VERDICTS[critique.accepted],
        }
        content = png_bytes(pixels, tags)
        self._store.write(work_name(task, number), content)
        self._beside(self._scratch / task, candidate.id, content)
        return Attempt(
            task=task,
            attempt=number,
            candidate=candidate.model_copy(update={"critique": critique}),
            sha256=hashlib.sha256(content).hexdigest(),
            width=pixels.shape[1],
            height=pixels.shape[0],
            kept=keeps,
            descriptor=descriptor(pixels) if keeps else "",
        )

    def _settle(self, run: TaskRun) -> Settled:
        """Put the images where they belong, drop accepted siblings, let the task go."""
        task, best = run.task.id, run.accepted
        accepted = None if best is None else run.number(best.id)
        for number, one in enumerate(run.candidates, 1):
            name = work_name(task, number)
            if number == accepted:
                self._store.move(name, image_name(task))
            elif run.keeps(one.critique):
                self._store.remove(name)
            else:
                self._store.move(name, rejected_name(task, number))
        self._drop(task)
        return Settled(
            task, accepted, int(run.state["round"]), run.choice.why if run.choice else ""
        )

    def _drop(self, task: str) -> None:
        self._runs.pop(task, None)
        self._alone.discard(task)
        shutil.rmtree(self._scratch / task, ignore_errors=True)


def descriptor(pixels: np.ndarray) -> str:
    """What an image is compared by with others: hex of a float16 unit vector; empty if too small.

    The vector is that of `medgen.measure.memorisation`: coarse pixel structure without contrast.
    """
    height, width = pixels.shape[:2]
    if height != width or height < 128:
        return ""
    vector: np.ndarray = bundled_index().descriptors(reduced(pixels[None]))[0]
    return bytes(vector.astype(np.float16).tobytes()).hex()

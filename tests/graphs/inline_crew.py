"""Datasets of a few phantom images: a crew in the test's own process, and what it made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from phantom import PhantomGenerator, phantom_collaborators

from medgen.graphs.collaborators import Collaborators
from medgen.graphs.synthesis import Outcome
from medgen.graphs.synthesis_crew import Lost, Message
from medgen.graphs.synthesis_worker import Order, Setup, Worker

SPEC = """\
seed: 3
images:
  - {modality: Chest X-ray, each: 3, findings: [cardiomegaly],
     severity: [mild, severe], sex: [male]}
budget: {rounds: 3, tasks_an_image: 4}
diversity: {near_copies: false}
"""
OWN = ("journal.sqlite", "dataset.json")
Make = Callable[..., Outcome]


def files(folder: Path, *without: str) -> dict[str, str]:
    """Every file of a dataset but the engine's own, by its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (*OWN, *without)
    }


class BatchingPhantom(PhantomGenerator):
    """Draws four at a time, pictures with and without numbers apart, as the compact one does."""

    micro_batch = 4
    steps = 20
    guidance_scale = 1.6

    def batch_key(self, told: object) -> bool:
        return bool(getattr(told, "structured", None))


def minds(_options: object = None) -> Collaborators:
    return phantom_collaborators(BatchingPhantom())


class InlineCrew:
    """Steps happen when the engine listens; `deaths` says before which steps a worker dies."""

    def __init__(
        self,
        size: int,
        setup: Setup,
        deaths: set[int] = frozenset(),  # type: ignore[assignment]
        make: Callable[[], Collaborators] = minds,
    ) -> None:
        self.size, self._setup, self._make = size, setup, make
        self.deaths, self.steps = deaths, 0
        self.workers: dict[int, Worker] = {}
        self.orders: dict[int, Order] = {}
        self.greeting: list[int] = []
        self.generators: list[BatchingPhantom] = []

    def start(self, worker: int) -> None:
        collaborators = self._make()
        self.generators.append(collaborators.generator)  # type: ignore[arg-type]
        self.workers[worker] = Worker(self._setup, collaborators)
        self.greeting.append(worker)

    def send(self, worker: int, order: Order) -> None:
        assert worker not in self.orders
        self.orders[worker] = order

    def receive(self, _seconds: float) -> list[tuple[int, Message]]:
        heard: list[tuple[int, Message]] = []
        for worker in self.greeting:
            heard.append((worker, self.workers[worker].hello()))
        self.greeting = []
        if heard:
            return heard
        for worker, order in list(self.orders.items()):
            del self.orders[worker]
            self.steps += 1
            if self.steps in self.deaths:
                del self.workers[worker]
                heard.append((worker, Lost("killed by the test")))
            else:
                heard.append((worker, self.workers[worker].step(order)))
        return heard

    def stop(self, worker: int) -> None:
        self.workers.pop(worker, None)
        self.orders.pop(worker, None)

    def close(self) -> None:
        self.workers.clear()

"""Workers as Ray actors, on as many machines as a Ray cluster has; needs the `ray` extra.

An actor takes the processor threads (and for a diffusers backend the GPU) that a worker needs, so
Ray places one a free slot; actors that find none wait, which is what makes an autoscaler add
machines. Orders and reports travel through Ray, images never do: actors write them to the
dataset's place themselves, which every machine must reach (a shared folder, s3://...).
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from medgen.errors import BadInput, MedgenError
from medgen.graphs.synthesis_crew import Lost, Message, Minds, Refused
from medgen.graphs.synthesis_worker import Hello, Order, Report, Setup, Worker
from medgen.settings import RUN_SETTINGS

NAMESPACE = "medgen"
PASSED_ON = (*RUN_SETTINGS, "modality_cards")


class Actor:
    """A worker as Ray holds it; loads its models when it is first asked."""

    def __init__(self, setup: Setup, minds: Minds | None) -> None:
        self._setup, self._minds = setup, minds
        self._worker: Worker | None = None

    def hello(self) -> Hello | Refused:
        """Load everything and say who works."""
        try:
            minds = self._minds(self._setup.options) if self._minds else None
            self._worker = Worker(self._setup, minds)
            return self._worker.hello()
        except BadInput as error:
            return Refused(error)

    def step(self, order: Order) -> Report:
        """See `Worker.step`."""
        assert self._worker is not None
        return self._worker.step(order)


class RayCrew:
    """Actors of a Ray cluster; see `medgen.graphs.synthesis_crew.Crew`.

    Args:
        size: How many; as many as the cluster has room for when None.
        setup: What they make.
        address: The cluster's ("auto", "ray://host:10001"); one of this machine's own when None.
        minds: As for `LocalCrew`.

    Raises:
        BadInput: Ray is not installed.
        MedgenError: The cluster cannot be reached.
    """

    def __init__(
        self, size: int | None, setup: Setup, address: str | None, minds: Minds | None = None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise BadInput('--engine ray needs Ray: pip install "medgen[ray]"') from error
        self._ray: Any = ray
        self._setup, self._minds = setup, minds
        self._started_here = not ray.is_initialized()
        if self._started_here:
            try:
                ray.init(
                    address=address or "local",
                    namespace=NAMESPACE,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise MedgenError(
                    f"no Ray cluster at {address or 'this machine'} ({reason}): check --address"
                ) from error
        self.size = size or max(
            1, int(self._ray.cluster_resources().get("CPU", 1) // self._threads)
        )
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, int] = {}

    @property
    def _threads(self) -> int:
        return max(1, self._setup.options.threads)

    def _options(self) -> dict[str, Any]:
        told = {f"MEDGEN_{name.upper()}" for name in PASSED_ON}
        environment = {name: os.environ[name] for name in told if name in os.environ}
        threads = str(self._threads)
        environment.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        wants_gpu = self._setup.options.backend.startswith("diffusers")
        has_gpu = self._ray.cluster_resources().get("GPU", 0) >= 1
        return {
            "num_cpus": self._threads,
            "num_gpus": 1 if wants_gpu and has_gpu else 0,
            "max_restarts": 0,
            "runtime_env": {"env_vars": environment},
        }

    def start(self, worker: int) -> None:
        """See `Crew.start`."""
        self.stop(worker)
        actor = self._ray.remote(Actor).options(**self._options()).remote(self._setup, self._minds)
        self._actors[worker] = actor
        self._asked[actor.hello.remote()] = worker

    def send(self, worker: int, order: Order) -> None:
        """See `Crew.send`."""
        self._asked[self._actors[worker].step.remote(order)] = worker

    def receive(self, seconds: float) -> list[tuple[int, Message]]:
        """See `Crew.receive`."""
        if not self._asked:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        return [self._answer(one) for one in dict.fromkeys([*ready, *more])]

    def _answer(self, asked: Any) -> tuple[int, Message]:
        worker = self._asked.pop(asked)
        try:
            message: Message = self._ray.get(asked)
            return worker, message
        except self._ray.exceptions.RayActorError as error:
            why = str(error)
            self._actors.pop(worker, None)
            # A machine that goes takes its tasks along through no fault of theirs.
            return worker, Lost(f"the worker died ({_first_line(why)})", blameless="node" in why)
        except self._ray.exceptions.RayError as error:
            self.stop(worker)
            return worker, Lost(f"the worker failed ({_first_line(str(error))})")

    def stop(self, worker: int) -> None:
        """See `Crew.stop`."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor, no_restart=True)
        for asked in [one for one, whose in self._asked.items() if whose == worker]:
            del self._asked[asked]

    def close(self) -> None:
        """See `Crew.close`."""
        for worker in list(self._actors):
            self.stop(worker)
        if self._started_here:
            self._ray.shutdown()


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"

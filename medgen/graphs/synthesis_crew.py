"""Workers as processes of this machine; what the engine knows of workers wherever they run.

Each worker is a process of its own that loads its models once and answers one order at a time. A
process that dies, or takes longer than it may, is a `Lost` worker and is started again. Started by
"spawn", so that nothing of this process's threads comes along.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, cast

from medgen.errors import BadInput, MedgenError
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.synthesis_worker import Hello, Order, Report, Setup, Worker
from medgen.settings import Settings

START_METHOD = "spawn"
ORPHANED_AFTER = 2.0
Minds = Callable[[Settings], Collaborators]


@dataclass(frozen=True)
class Lost:
    """A worker that is gone, and why; `blameless` where what it drew cannot be the reason."""

    why: str
    blameless: bool = False


@dataclass(frozen=True)
class Refused:
    """A worker that cannot start for a reason that another one would have, too."""

    error: MedgenError


Message = Hello | Report | Lost | Refused


class Crew(Protocol):
    """Some workers, numbered from 0; each is given one order at a time."""

    size: int

    def start(self, worker: int) -> None:
        """Start a worker, or start it again; it says hello when it is ready."""
        ...

    def send(self, worker: int, order: Order) -> None:
        """Give an order to a worker that has answered all before."""
        ...

    def receive(self, seconds: float) -> list[tuple[int, Message]]:
        """What workers said; waits at most so long for the first word."""
        ...

    def stop(self, worker: int) -> None:
        """End a worker at once, whatever it does; nothing more is heard of it."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass
class _Process:
    process: Any
    pipe: Connection


class LocalCrew:
    """Processes of this machine.

    Args:
        size: How many.
        setup: What they make.
        minds: Makes the collaborators of a worker from its settings; must be importable by name.
    """

    def __init__(self, size: int, setup: Setup, minds: Minds | None = None) -> None:
        self.size, self._setup, self._minds = size, setup, minds
        self._context: Any = multiprocessing.get_context(START_METHOD)
        self._processes: dict[int, _Process] = {}

    def start(self, worker: int) -> None:
        """See `Crew.start`."""
        self.stop(worker)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, self._setup, self._minds, os.getpid()),
            name=f"medgen-worker-{worker}",
            daemon=True,
        )
        # Read before torch is: its threads are counted once, when it is imported.
        threads = str(self._setup.options.threads)
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = threads
        process.start()
        theirs.close()
        self._processes[worker] = _Process(process, ours)

    def send(self, worker: int, order: Order) -> None:
        """See `Crew.send`; a worker that is gone is told of by `receive`."""
        try:
            self._processes[worker].pipe.send(order)
        except OSError:
            return

    def receive(self, seconds: float) -> list[tuple[int, Message]]:
        """See `Crew.receive`."""
        by_pipe = {one.pipe: worker for worker, one in self._processes.items()}
        if not by_pipe:
            time.sleep(seconds)
        heard: list[tuple[int, Message]] = []
        for pipe in wait(list(by_pipe), timeout=seconds):
            worker = by_pipe[cast("Connection", pipe)]
            try:
                heard.append((worker, cast("Connection", pipe).recv()))
            except (EOFError, OSError):
                process = self._processes.pop(worker).process
                process.join(5)
                code = process.exitcode
                name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
                heard.append((worker, Lost(f"the worker died ({name})")))
        return heard

    def stop(self, worker: int) -> None:
        """See `Crew.stop`."""
        gone = self._processes.pop(worker, None)
        if gone is not None:
            gone.process.kill()
            gone.process.join()
            gone.pipe.close()

    def close(self) -> None:
        """See `Crew.close`."""
        for worker in list(self._processes):
            self.stop(worker)


def serve(pipe: Connection, setup: Setup, minds: Minds | None, parent: int) -> None:
    """Answer orders until the other end is gone; the life of a worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine ends its workers itself
    sys.stdout = sys.stderr
    try:
        worker = Worker(setup, minds(setup.options) if minds else None)
        pipe.send(worker.hello())
    except BadInput as error:
        pipe.send(Refused(error))
        return
    while True:
        try:
            while not pipe.poll(ORPHANED_AFTER):
                if os.getppid() != parent:
                    return
            report = worker.step(pipe.recv())
            if os.getppid() != parent:  # killed meanwhile: nobody would hear
                return
            pipe.send(report)
        except (EOFError, BrokenPipeError):
            return

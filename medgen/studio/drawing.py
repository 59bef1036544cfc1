"""A run in a thread, told step by step to whoever waits for it, and stopped when nobody does.

Knows threads and the agent's callbacks; knows nothing of pages.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from medgen.errors import Cancelled
from medgen.records import TraceEvent

if TYPE_CHECKING:
    from medgen.graphs.results import RunResult

Tell = Callable[[str | TraceEvent], None]


async def steps_of(
    work: Callable[[Tell], RunResult],
) -> AsyncIterator[str | TraceEvent | RunResult]:
    """Do a run's work in a thread of its own and yield what it tells.

    Closing the iterator stops the run after the node that it is in; what is done so far is kept.

    Args:
        work: Runs an agent, which calls what it is given with each node's name as it starts and
            each node's event as it ends.

    Yields:
        Names of nodes, their events, and last the run's result.

    Raises:
        MedgenError: As the run does.
    """
    loop, stopped = asyncio.get_running_loop(), threading.Event()
    told: asyncio.Queue[str | TraceEvent | RunResult | Exception] = asyncio.Queue()

    def tell(thing: str | TraceEvent | RunResult | Exception) -> None:
        if stopped.is_set():
            raise Cancelled("the run was cancelled")
        loop.call_soon_threadsafe(told.put_nowait, thing)

    def run() -> None:
        try:
            tell(work(tell))
        except Exception as error:
            if not stopped.is_set():
                tell(error)

    threading.Thread(target=run, name="medgen-run", daemon=True).start()
    try:
        while True:
            thing = await told.get()
            if isinstance(thing, Exception):
                raise thing
            yield thing
            if not isinstance(thing, str | TraceEvent):
                return
    finally:
        stopped.set()

"""A run in a thread, told step by step to whoever waits for it, and stopped when nobody does.

Cancelling is the run's own matter: the waiter is told `Cancelled` like any other end. (Gradio's
`cancels` drops the waiter from outside, and what the page then showed was a matter of luck.)

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
LISTENS_FOR = 0.2
"""Seconds between two looks at whether to stop."""


class Cancellations:
    """Which browser sessions wait or draw, and which of them asked to cancel."""

    def __init__(self) -> None:
        self._drawing: dict[str, bool] = {}
        self._asked: set[str] = set()

    def wait(self, session: str) -> None:
        """A drawing of the session is asked for; an older wish to cancel does not concern it."""
        self._asked.discard(session)
        self._drawing.setdefault(session, False)

    def start(self, session: str) -> None:
        """The session's turn has come."""
        self._drawing[session] = True

    def end(self, session: str) -> None:
        """The session's drawing is over."""
        self._drawing.pop(session, None)
        self._asked.discard(session)

    def ask(self, session: str) -> bool:
        """Cancel what the session draws or waits to draw.

        Returns:
            Whether it still waits: then nobody else tells its page.
        """
        if session not in self._drawing:
            return False
        self._asked.add(session)
        return not self._drawing[session]

    def asked(self, session: str) -> bool:
        """Whether the session's drawing is to stop."""
        return session in self._asked


async def steps_of(
    work: Callable[[Tell], RunResult], cancelled: Callable[[], bool] = lambda: False
) -> AsyncIterator[str | TraceEvent | RunResult]:
    """Do a run's work in a thread of its own and yield what it tells.

    Closing the iterator stops the run after the node that it is in; what is done so far is kept.

    Args:
        work: Runs an agent, which calls what it is given with each node's name as it starts and
            each node's event as it ends.
        cancelled: Asked several times a second whether to stop.

    Yields:
        Names of nodes, their events, and last the run's result.

    Raises:
        Cancelled: It was asked to stop.
        MedgenError: As the run does.
    """
    if cancelled():
        raise Cancelled("the run was cancelled")
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
            try:
                thing = await asyncio.wait_for(told.get(), LISTENS_FOR)
            except TimeoutError:
                thing = None
            if cancelled():
                raise Cancelled("the run was cancelled")
            if thing is None:
                continue
            if isinstance(thing, Exception):
                raise thing
            yield thing
            if not isinstance(thing, str | TraceEvent):
                return
    finally:
        stopped.set()

"""A run in a thread: told step by step, and stopped when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading

import pytest

from medgen.errors import BadInput, Cancelled
from medgen.studio.drawing import Cancellations, Tell, steps_of


def test_leaving_stops_the_run_at_its_next_step() -> None:
    go_on, ended = threading.Event(), threading.Event()
    done: list[str] = []

    def work(tell: Tell):  # type: ignore[no-untyped-def]
        try:
            for node in ("parse", "generate", "verify"):
                tell(node)
                done.append(node)
                go_on.wait(10)
        except Cancelled:
            ended.set()
            raise

    async def leave_after_the_first_step() -> None:
        steps = steps_of(work)
        assert await anext(steps) == "parse"
        await steps.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave_after_the_first_step())
    go_on.set()
    assert ended.wait(10)
    assert done == ["parse"]


def test_what_goes_wrong_is_told_to_who_waits() -> None:
    def work(tell: Tell):  # type: ignore[no-untyped-def]
        tell("parse")
        raise BadInput("no finding is named")

    async def wait() -> list[object]:
        return [step async for step in steps_of(work)]

    with pytest.raises(BadInput, match="no finding"):
        asyncio.run(wait())


def test_cancelling_stops_the_run_and_tells_who_waits() -> None:
    cancellations, go_on, ended = Cancellations(), threading.Event(), threading.Event()

    def work(tell: Tell):  # type: ignore[no-untyped-def]
        try:
            tell("parse")
            go_on.wait(10)
            tell("generate")
        except Cancelled:
            ended.set()
            raise

    async def cancel_after_the_first_step() -> None:
        cancellations.wait("ours")
        cancellations.start("ours")
        steps = steps_of(work, lambda: cancellations.asked("ours"))
        assert await anext(steps) == "parse"
        assert cancellations.ask("ours") is False  # it draws: the run itself tells its page
        with pytest.raises(Cancelled):
            await anext(steps)

    asyncio.run(cancel_after_the_first_step())
    go_on.set()
    assert ended.wait(10)


def test_cancelling_concerns_the_drawing_asked_for_last_and_no_other_session() -> None:
    cancellations = Cancellations()
    assert cancellations.ask("ours") is False
    assert not cancellations.asked("ours")  # nothing was drawn
    cancellations.wait("ours")
    cancellations.wait("theirs")
    assert cancellations.ask("ours") is True
    assert cancellations.asked("ours")
    assert not cancellations.asked("theirs")
    cancellations.wait("ours")
    assert not cancellations.asked("ours")

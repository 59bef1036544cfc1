"""A run in a thread: told step by step, and stopped when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading

import pytest

from medgen.errors import BadInput, Cancelled
from medgen.studio.drawing import Tell, steps_of


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

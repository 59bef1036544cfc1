"""A run as it happens: its steps from the start, live until it ends, for one client each.

What is sent is read from the job's state at each change, so that a slow client misses no step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from medgen.errors import BadInput
from medgen.serve.jobs import Job, Jobs
from medgen.serve.views import Runs


async def stream_slot(request: Request) -> AsyncIterator[None]:
    """A place among the streams that may be open, for as long as the answer lasts."""
    state = request.app.state
    if state.open_streams >= state.limits.streams:
        raise HTTPException(
            429,
            f"{state.limits.streams} event streams are open: close one",
            headers={"Retry-After": "10"},
        )
    state.open_streams += 1
    try:
        yield
    finally:
        state.open_streams -= 1


async def follow(run_id: str, jobs: Jobs, runs: Runs, after: int) -> AsyncIterator[ServerSentEvent]:
    """Steps after the one numbered `after`, and how the run stands, until it has ended."""
    job = jobs.active.get(run_id)
    if job is not None:
        async for event in _live(job, jobs, runs, after):
            yield event
        return
    for number, step in enumerate(await run_in_threadpool(_kept, runs, run_id), 1):
        if number > after:
            yield ServerSentEvent(event="step", id=str(number), data=step)
    found = await run_in_threadpool(runs.view, run_id)
    yield ServerSentEvent(
        event="status",
        data={"status": found.status, "node": None, "ahead": None, "error": found.error},
    )


def _kept(runs: Runs, run_id: str) -> list[dict[str, Any]]:
    try:
        return [step.model_dump(mode="json") for step in runs.trace(run_id).events]
    except BadInput:  # it never started, or is damaged: its status says so
        return []


async def _live(job: Job, jobs: Jobs, runs: Runs, after: int) -> AsyncIterator[ServerSentEvent]:
    run_id, sent, told = job.folder.run_id, after, None
    with job.watched() as changed:
        while True:
            changed.clear()
            ended = job.ended
            state = {
                "status": job.status,
                "node": job.node,
                "ahead": jobs.ahead(job),
                "error": runs.addressed(job.error, run_id),
            }
            for step in job.events[sent:]:
                sent += 1
                dumped = runs.addressed(step.model_dump(mode="json"), run_id)
                yield ServerSentEvent(event="step", id=str(sent), data=dumped)
            if state != told:
                told = state
                yield ServerSentEvent(event="status", data=state)
            if ended or jobs.stopping:
                return
            await changed.wait()

"""Routes for runs: ask for one, follow it, fetch what came of it, or call it off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from medgen.agents import parser
from medgen.errors import BadInput
from medgen.graphs.runs import Trace
from medgen.records import Request as RunRecord
from medgen.serve.jobs import Jobs, QueueFull
from medgen.serve.schemas import (
    EXAMPLE_ID,
    IMAGE_NAME,
    NO_RUN,
    REFUSALS,
    RUN_ID,
    Answers,
    Problem,
    RunList,
    RunRequest,
    RunView,
    in_json,
)
from medgen.serve.stream import follow, stream_slot
from medgen.serve.views import Runs, image_file

PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
)
PNG: Answers = {200: {"content": {"image/png": {}}, "description": "The image."}}
TRACE: Answers = {200: {"content": {"application/json": {}, "text/html": {}}, "model": Trace}}

RunId = Annotated[str, Path(pattern=RUN_ID, examples=[EXAMPLE_ID])]
router = APIRouter(prefix="/runs", tags=["runs"])


def jobs_of(request: Request) -> Jobs:
    """The server's queue."""
    jobs: Jobs = request.app.state.jobs
    return jobs


def runs_of(request: Request) -> Runs:
    """The server's runs."""
    return Runs(jobs_of(request))


Queue = Annotated[Jobs, Depends(jobs_of)]
Shown = Annotated[Runs, Depends(runs_of)]


def known(run_id: RunId, runs: Shown) -> str:
    """The id of a run that is there."""
    runs.folder(run_id)
    return run_id


@router.post("", status_code=202)
def ask(
    body: RunRequest, request: Request, response: Response, jobs: Queue, runs: Shown
) -> RunView:
    """Ask for a run: it waits its turn, and is drawn as `medgen agent` would.

    The answer comes at once; follow it with GET /runs/{run_id} or its events.
    """
    asked = body.request()
    request.app.state.limits.check(asked)
    _refuse_unreadable(asked, jobs)
    try:
        job = jobs.submit(asked)
    except QueueFull as error:
        raise HTTPException(429, str(error), headers={"Retry-After": "60"}) from error
    response.headers["Location"] = f"/runs/{job.folder.run_id}"
    return runs.view(job.folder.run_id)


def _refuse_unreadable(asked: RunRecord, jobs: Jobs) -> None:
    """Refuse now what would fail at the first step, unless a language model reads it better."""
    minds = jobs.agent.collaborators
    if minds.settings.llm is not None:
        return
    modality = parser.parse(asked).modality
    if jobs.ready and modality not in minds.generator.modalities:
        raise BadInput(parser.explain_undrawable(modality, minds.generator.modalities))


@router.get("")
def listed(
    runs: Shown,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[
        str | None, Query(pattern=RUN_ID, description="From an earlier page.")
    ] = None,
) -> RunList:
    """All runs of the server's folder, newest first, those of the command line among them."""
    return runs.page(limit, before)


@router.get("/{run_id}", responses=NO_RUN)
def shown(run_id: RunId, runs: Shown) -> RunView:
    """How a run stands, with its result when it is finished."""
    return runs.view(run_id, whole=True)


@router.delete(
    "/{run_id}",
    status_code=202,
    responses={
        **NO_RUN,
        409: {"model": Problem, "description": "The run has ended."},
    },
)
def cancelled(run_id: RunId, jobs: Queue, runs: Shown) -> RunView:
    """Call a run off: at once when it waits, after the step it is in when it is drawn.

    What it has drawn stays. A run that has ended is never removed.
    """
    runs.folder(run_id)
    job = jobs.active.get(run_id)
    if job is None:
        raise HTTPException(409, f"run {run_id} is not on its way: nothing to call off")
    jobs.cancel(job)
    return runs.view(run_id)


@router.get("/{run_id}/trace", response_model=Trace, responses={**NO_RUN, **TRACE})
def trace(
    run_id: RunId, runs: Shown, format: Annotated[Literal["json", "html"], Query()] = "json"
) -> Trace | HTMLResponse:
    """All that a run did and why: plan, facts, candidates, verdicts, choices, events.

    As `html` the page to read in a browser, once the run is finished.
    """
    if format == "json":
        return runs.trace(run_id)
    return HTMLResponse(runs.trace_page(run_id), headers={"Content-Security-Policy": PAGE_POLICY})


@router.get("/{run_id}/images/{name}", response_class=FileResponse, responses={**NO_RUN, **PNG})
def image(
    run_id: RunId,
    name: Annotated[str, Path(pattern=IMAGE_NAME, examples=["image.png"])],
    runs: Shown,
) -> FileResponse:
    """A result or a candidate, as a PNG that says in its text that it is synthetic."""
    return FileResponse(image_file(runs.folder(run_id), name), media_type="image/png")


@router.get(
    "/{run_id}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(stream_slot)],
    responses=in_json({**REFUSALS, **NO_RUN}),
)
async def events(
    run_id: Annotated[str, Depends(known)],
    jobs: Queue,
    runs: Shown,
    last_event_id: Annotated[int, Header(ge=0, le=10_000)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """A run's steps from its start, then live until it ends, as server-sent events.

    `step` has a finished step as in the trace and its number as id; `status` says how the run
    stands. A client that comes back with `Last-Event-ID` gets what it has missed.
    """
    async for event in follow(run_id, jobs, runs, last_event_id):
        yield event

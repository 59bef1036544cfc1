"""The route for ratings: one rater's word on an image of a run, into the feedback log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from medgen.data.images import pixel_sha256
from medgen.errors import BadInput
from medgen.feedback.log import configured_log
from medgen.feedback.records import Rating
from medgen.graphs.results import load
from medgen.graphs.run_folder import CANDIDATES
from medgen.graphs.runs import load_run
from medgen.serve.run_routes import runs_of
from medgen.serve.schemas import NO_RUN, RatingAnswer, RatingRequest
from medgen.serve.views import Runs, image_file

router = APIRouter(prefix="/ratings", tags=["ratings"])


@router.post("", status_code=201, responses=NO_RUN)
def rate(
    body: RatingRequest, request: Request, runs: Annotated[Runs, Depends(runs_of)]
) -> RatingAnswer:
    """Rate an image of a run. The rating is on the server's disk when the answer comes.

    A rater's newest rating of an image counts; one whose `id` was sent before changes nothing.
    """
    rating = _rating(body, runs)
    log = configured_log()
    if log is None:
        raise BadInput("this server keeps no ratings (MEDGEN_FEEDBACK=off)")
    try:
        added = log.append_rating(rating)
    finally:
        log.close()
    request.app.state.metrics.ratings.inc(added)
    path = runs.addressed(rating.image_path, body.run)
    return RatingAnswer(rating=rating.model_copy(update={"image_path": path}), added=bool(added))


def _rating(body: RatingRequest, runs: Runs) -> Rating:
    folder = runs.folder(body.run)
    file = image_file(folder, body.image)
    trace = load_run(folder)
    if trace.plan is None:
        raise BadInput(f"run {body.run} has no plan yet: rate it later")
    given = body.model_dump(exclude={"run", "image", "id"})
    if body.id is not None:
        given["id"] = body.id
    return Rating(
        **given,
        source="human",
        prompt=trace.request.prompt,
        modality=trace.plan.modality,
        run=body.run,
        candidate=_candidate(folder, file),
        image_sha256=pixel_sha256(file),
        image_path=str(file),
    )


def _candidate(folder: Path, file: Path) -> str | None:
    """The candidate that an image is, or was copied from."""
    if file.parent.name == CANDIDATES:
        return file.stem
    names = {Path(one.image).name: one.candidate for one in load(folder).results}
    return names.get(file.name)

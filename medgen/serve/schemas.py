"""What the HTTP API takes and gives: bodies, their limits and examples, and answers.

Answers are the project's own records wherever there is one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from medgen.agents.parser import LONGEST_REPORT
from medgen.feedback.records import Rating, Scale
from medgen.graphs.plan import request_of
from medgen.records import Reading, Record, Request, Run, RunSummary, Verdict
from medgen.settings import settings

MAX_SEED = 2**32 - 1
RUN_ID = r"^[0-9]{8}-[0-9]{6}-[0-9]{6}-[0-9a-f]{8}$"
IMAGE_NAME = r"^[A-Za-z0-9_-]{1,80}\.png$"
EXAMPLE_ID = "20260102-030405-678901-0a1b2c3d"

RunStatus = Literal["queued", "running", "finished", "cancelled", "failed", "unfinished", "damaged"]
Answers = dict[int | str, dict[str, Any]]
Text = Annotated[str, Field(max_length=2000)]


class RunRequest(Record):
    """What to draw, and with which budget; the server's own settings where left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "cardiomegaly, chest X-ray", "seed": 7},
                {"prompt": "glioma, brain MRI", "images": 4, "rounds": 2, "candidates": 2},
            ]
        }
    )

    prompt: str = Field(min_length=1, max_length=LONGEST_REPORT)
    modality: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    reading: Reading | None = None
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    images: int = Field(default=1, ge=1)
    rounds: int | None = Field(default=None, ge=1)
    candidates: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    steps: int | None = Field(default=None, ge=2)
    guidance: float | None = Field(default=None, ge=1, le=30, allow_inf_nan=False)
    negative: Text | None = None

    def request(self) -> Request:
        """The request, the settings' budget filled in.

        Raises:
            BadInput: A figure that no run may have.
        """
        given = self.model_dump(exclude_none=True)
        budget = settings().model_dump(include={"rounds", "candidates", "seconds"})
        return request_of(**{**budget, **given, "modality": self.modality})


class RatingRequest(Record):
    """One rater's word on an image of a run.

    `image` is a file name as in the run's addresses; `id` makes a repeated sending count once;
    `finding_flags` says of findings whether the image shows them.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "run": EXAMPLE_ID,
                    "image": "image.png",
                    "rater": "reader 1",
                    "rating": 4,
                    "finding_flags": {"cardiomegaly": "confirmed"},
                }
            ]
        }
    )

    run: str = Field(pattern=RUN_ID)
    image: str = Field(pattern=IMAGE_NAME)
    rater: str = Field(min_length=1, max_length=200, pattern=r"\S")
    rating: int = Field(ge=1, le=5)
    scale: Scale = 5
    expert_level: int | None = Field(default=None, ge=1, le=3)
    finding_flags: dict[Annotated[str, Field(max_length=200)], Verdict] = Field(
        default={}, max_length=64
    )
    comment: Text = ""
    blinded: bool = False
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w-]+$")] | None = None

    @model_validator(mode="after")
    def _within_scale(self) -> Self:
        if self.rating > self.scale:
            raise ValueError(f"rating {self.rating} is outside 1 to {self.scale}")
        return self


class RatingAnswer(Record):
    """A rating as it was written; `added` is false when the log had this id already."""

    rating: Rating
    added: bool


class RunView(RunSummary):
    """How a run stands. Images are addresses on this server; `folder` is the last part of its own.

    `ahead` is how many runs come before one that waits, `node` the step that is being worked on,
    `error` why it failed. `result` is there when it is finished, and asked for by its id.
    """

    status: RunStatus  # type: ignore[assignment]
    ahead: int | None = None
    node: str | None = None
    error: str | None = None
    result: Run | None = None


class RunList(Record):
    """Runs, newest first; `before` leads to the next page, null on the last one."""

    runs: list[RunView]
    before: str | None = None


class Problem(Record):
    """Why a request was refused, in one line."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"detail": "images is 64: this server allows 8"}]}
    )

    detail: str


class Health(Record):
    """Whether the server can draw, and how many runs wait."""

    status: Literal["ok", "loading"]
    waiting: int


REFUSALS: Answers = {
    400: {"model": Problem, "description": "The body is no JSON, or the host is not this one."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "The request cannot be used: what, and what to do."},
    429: {"model": Problem, "description": "Too many at once, or too often."},
    503: {"model": Problem, "description": "The disk or the feedback log is out of reach."},
}
NO_RUN: Answers = {404: {"model": Problem, "description": "There is no such run or image."}}


def in_json(answers: Answers) -> Answers:
    """Refusals of a route whose answer is not JSON; FastAPI would say that they are not either."""
    schema = {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
    return {
        code: {"description": one["description"], "content": {"application/json": schema}}
        for code, one in answers.items()
    }

"""What the feedback log holds: runs with their candidates, and labels with where they come from.

A label is a rating, a choice between two images, or a guess whether an image is real. It names its
rater and its source, so that a simulated or computed label is never taken for a person's. Knows no
database.

Images are known by `medgen.data.images.pixel_sha256`, so that a run's result and the candidate it
was copied from are one image.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from medgen.records import Candidate, Plan, Record, Request, Verdict

Source = Literal["human", "verifier", "simulated"]
Scale = Literal[3, 5]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
UtcTime = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """An id that no other label has."""
    return uuid4().hex


class Label(Record):
    """What one rater said at one time.

    The newest label of a rater on the same subject and prompt counts; one with `withdrawn` takes
    the earlier one back. A second label with an `id` that the log has is ignored, so that a sender
    may repeat itself. `expert_level` is 1 to 3 as in MINIM's tables, 3 the most expert, null where
    unknown; `blinded`: the rater saw neither the verdicts nor what drew the image; `seconds`: time
    taken.
    """

    id: Name = Field(default_factory=new_id)
    rater: Name
    source: Source
    expert_level: int | None = Field(default=None, ge=1, le=3)
    prompt: str
    modality: str
    run: str | None = None
    comment: str = ""
    blinded: bool = False
    seconds: float | None = Field(default=None, ge=0)
    withdrawn: bool = False
    created: UtcTime = Field(default_factory=now)

    @property
    @abstractmethod
    def subject(self) -> str:
        """What the label is about: the hash of one image, or of two joined."""


class Rating(Label):
    """How well an image shows its prompt, 1 (worst) to `scale` (best).

    `finding_flags` says of findings whether the image shows them, in the verifier's own terms.
    """

    image_sha256: Sha256
    image_path: str
    candidate: str | None = None
    rating: int
    scale: Scale = 5
    finding_flags: dict[str, Verdict] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _within_scale(self) -> Rating:
        if not 1 <= self.rating <= self.scale:
            raise ValueError(f"rating {self.rating} is outside 1 to {self.scale}")
        return self

    @property
    def subject(self) -> str:
        """The image's hash."""
        return self.image_sha256

    @property
    def level(self) -> float:
        """The rating between 0 (worst) and 1 (best), whatever its scale."""
        return (self.rating - 1) / (self.scale - 1)


class Pair(Label):
    """Which of two images of one prompt is better: `winner` and `loser` are image hashes."""

    winner: Sha256
    loser: Sha256
    winner_path: str
    loser_path: str

    @model_validator(mode="after")
    def _two_images(self) -> Pair:
        if self.winner == self.loser:
            raise ValueError("winner and loser are the same image")
        return self

    @property
    def subject(self) -> str:
        """Both hashes, in an order that does not depend on who won."""
        return "+".join(sorted((self.winner, self.loser)))


class RealOrSynthetic(Label):
    """A guess whether an image is real, and what it was."""

    image_sha256: Sha256
    image_path: str
    guess: Literal["real", "synthetic"]
    truth: Literal["real", "synthetic"]

    @property
    def subject(self) -> str:
        """The image's hash."""
        return self.image_sha256


class ActionOutcome(Record):
    """What one of the refiner's actions did: a figure of the parent and of the candidate.

    `measure` names the figure: "score", where more is better, or "error of QUANTITY", where less
    is; `improved` says which way it went.
    """

    action: str
    measure: str
    before: float
    after: float
    improved: bool


class LoggedCandidate(Record):
    """One image that a run drew: what it was told, its critique, and whether it was chosen.

    `prompt` is the user's own, `modality` a modality card's name; `drawn.conditioning` has what the
    generator was told. `decision` and `why` are the selector's word on a chosen one; `outcomes`
    what the refiner's actions on it did.
    """

    run: Name
    prompt: str
    modality: str
    image_sha256: Sha256
    chosen: bool
    decision: Literal["accept", "refine", "give up"] | None = None
    why: str = ""
    drawn: Candidate
    outcomes: list[ActionOutcome] = Field(default_factory=list)
    created: UtcTime = Field(default_factory=now)

    @property
    def image_path(self) -> str:
        """Where the image was written."""
        return self.drawn.image


class LoggedRun(Record):
    """A run that ended: what was asked and planned, which generator drew, and every candidate."""

    run: Name
    request: Request
    plan: Plan
    generator: str
    fingerprint: str
    candidates: list[LoggedCandidate] = Field(default_factory=list)
    created: UtcTime = Field(default_factory=now)


class RaterPair(Record):
    """Quadratic-weighted kappa of two raters over the images that both rated."""

    raters: tuple[str, str]
    images: int
    kappa: float | None


class Agreement(Record):
    """How far raters of one source agree on one scale.

    `alpha` is Krippendorff's for ordinal ratings; null with fewer than two raters, fewer than two
    images that two rated, or when every rating is the same, and then `why` says so. `interval` is
    its 95 % interval (bootstrap over images), null with fewer than ten shared images.
    """

    source: Source
    scale: Scale
    modality: str | None = None
    raters: int
    images: int
    shared_images: int
    alpha: float | None = None
    interval: tuple[float, float] | None = None
    pairs: list[RaterPair] = Field(default_factory=list)
    why: str | None = None


class ImportReport(Record):
    """What came of a file: `known` rows the log had already, `skipped` says why, a line a row."""

    table: str
    rows: int
    added: int = 0
    known: int = 0
    skipped: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    agreement: list[Agreement] = Field(default_factory=list)


class LogStats(Record):
    """What a log holds; ratings, pairs and guesses are those that count.

    `replaced` counts labels that were withdrawn or that a newer one of the same rater replaced;
    `raters` and `by_source` count labels of all kinds, the other tables ratings.
    """

    log: str
    schema_version: int
    runs: int
    candidates: int
    chosen: int
    ratings: int
    pairs: int
    guesses: int
    replaced: int
    raters: dict[str, int] = Field(default_factory=dict)
    by_source: dict[str, int] = Field(default_factory=dict)
    by_expert_level: dict[str, int] = Field(default_factory=dict)
    by_modality: dict[str, int] = Field(default_factory=dict)
    by_rating: dict[str, int] = Field(default_factory=dict)
    agreement: list[Agreement] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

"""Rating images one after the other: what comes next, what was said, and taking it back.

Each rating is in the log before the next image is shown, so a session may end at any moment and be
taken up again. Knows no screen and no keyboard.
"""

from __future__ import annotations

import time
from pathlib import Path

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import LoggedCandidate, Rating, Scale
from medgen.records import Record


class SessionOutcome(Record):
    """What came of a session: ratings that stand, images left, images that are gone."""

    log: str
    rater: str
    rated: int
    left: int
    missing: int


class RatingSession:
    """One rater at work on the images of a log that they have not rated.

    The rater sees prompt and picture, neither verdicts nor what drew it: ratings are blinded.

    Args:
        log: Where images come from and ratings go to.
        rater: Who rates.
        expert_level: 1 to 3, None where unknown.
        scale: What the ratings go up to.
        modality: Only images of one modality card's name.
        run: Only images of one run.

    Raises:
        BadInput: The rater has no name.
    """

    def __init__(
        self,
        log: FeedbackLog,
        rater: str,
        *,
        expert_level: int | None = None,
        scale: Scale = 5,
        modality: str | None = None,
        run: str | None = None,
    ) -> None:
        if not rater.strip():
            raise BadInput("--rater is empty: say who rates")
        self.log, self.rater, self.expert_level, self.scale = log, rater, expert_level, scale
        queue = log.queue(rater, modality=modality, run=run)
        self.missing = [one for one in queue if not Path(one.image_path).is_file()]
        gone = {one.image_sha256 for one in self.missing}
        self._queue = [one for one in queue if one.image_sha256 not in gone]
        self._place = 0
        self._said: list[tuple[int, Rating]] = []
        self._shown = time.monotonic()

    @property
    def current(self) -> LoggedCandidate | None:
        """The image to rate now; None when all are done."""
        return self._queue[self._place] if self._place < len(self._queue) else None

    @property
    def rated(self) -> int:
        """How many ratings of this session stand."""
        return len(self._said)

    @property
    def left(self) -> int:
        """How many images are not shown yet, the current one among them."""
        return len(self._queue) - self._place

    def rate(self, value: int) -> Rating:
        """Log a rating of the current image and go on to the next.

        Raises:
            ValueError: No image is left, or `value` is outside the scale.
        """
        one = self.current
        if one is None:
            raise ValueError("no image is left")
        rating = Rating(
            rater=self.rater,
            source="human",
            expert_level=self.expert_level,
            image_sha256=one.image_sha256,
            image_path=one.image_path,
            run=one.run,
            candidate=one.drawn.id,
            prompt=one.prompt,
            modality=one.modality,
            rating=value,
            scale=self.scale,
            blinded=True,
            seconds=round(time.monotonic() - self._shown, 1),
        )
        self.log.append_rating(rating)
        self._said.append((self._place, rating))
        self._go_to(self._place + 1)
        return rating

    def outcome(self) -> SessionOutcome:
        """What came of the session so far."""
        return SessionOutcome(
            log=self.log.name,
            rater=self.rater,
            rated=self.rated,
            left=self.left,
            missing=len(self.missing),
        )

    def skip(self) -> None:
        """Leave the current image for another session."""
        self._go_to(min(self._place + 1, len(self._queue)))

    def undo(self) -> Rating | None:
        """Withdraw this session's last rating and show its image again; None when there is none."""
        if not self._said:
            return None
        place, rating = self._said[-1]
        withdrawn = self.log.withdraw(rating)
        self._said.pop()
        self._go_to(place)
        return withdrawn

    def _go_to(self, place: int) -> None:
        self._place, self._shown = place, time.monotonic()

"""One rater's work: what is shown next, and the label that an answer becomes.

Every answer is in the log, safe on the disk, before the next picture is shown. What a picture is
stays here: a page gets a name drawn at random for it. Knows the feedback log; knows no page.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import Label, Pair, Rating, RealOrSynthetic, new_id
from medgen.studio.files import Pictures

Task = Literal["rating", "pair", "real"]
SIDES = ("left", "right")
LONGEST_COMMENT = 2_000
GRADES = {
    1: "not at all",
    2: "hardly",
    3: "in part",
    4: "mostly",
    5: "fully",
}


@dataclass(frozen=True)
class Subject:
    """One image that is asked about: its file and hash, and what drew it (None for a real one)."""

    path: str
    sha256: str
    run: str | None = None
    candidate: str | None = None


@dataclass(frozen=True)
class Item:
    """One question: one image, or two from left to right; `findings` are those asked for."""

    subjects: tuple[Subject, ...]
    prompt: str
    modality: str
    findings: tuple[tuple[str, str], ...] = ()  # canonical name, in words


@dataclass
class Shown:
    """An item as it is on the page: under which names, and since when."""

    item: Item
    name: str
    pictures: list[str]
    since: float = field(default_factory=time.monotonic)


class Desk:
    """A rater at work on a list of items.

    Args:
        log: Where the answers go.
        pictures: Gives pictures their names.
        task: What is asked.
        rater: Who answers.
        expert_level: 1 to 3, or None where unknown.
        items: What is asked about, in order.
        side: Pixels that every picture is reduced to, so that none stands out; None: each its own.

    Raises:
        BadInput: The rater has no name, or one that the log does not take.
    """

    def __init__(
        self,
        log: FeedbackLog,
        pictures: Pictures,
        task: Task,
        rater: str,
        expert_level: int | None,
        items: list[Item],
        side: int | None = None,
    ) -> None:
        self.task, self.rater, self.expert_level = task, rater.strip(), expert_level
        if not self.rater:
            raise BadInput("no name: say who rates, so that raters can be told apart")
        if len(self.rater) > 80:
            raise BadInput("the name is longer than 80 characters: shorten it")
        self._log, self._pictures, self._side = log, pictures, side
        self._ahead = deque(items)
        self._done: list[tuple[Item, Label]] = []
        self.total = len(items)
        self.shown: Shown | None = None
        self._show_next()

    @property
    def done(self) -> int:
        """How many were answered."""
        return len(self._done)

    @property
    def answers(self) -> list[Label]:
        """What was answered, in order."""
        return [label for _, label in self._done]

    def answer(self, given: Mapping[str, Any]) -> bool:
        """Log an answer and show the next item.

        Args:
            given: `item`, the name under which it was shown; `value`; `flags` of findings and
                `comment` where there are any.

        Returns:
            False when the answer is to an item that is not shown any more (a key pressed twice);
            nothing is logged then.

        Raises:
            BadInput: An answer that cannot be given to this item.
            MedgenError: The log cannot be written; the item stays.
        """
        shown = self.shown
        if shown is None or given.get("item") != shown.name:
            return False
        try:
            label = self._label(shown, given)
        except (ValidationError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise BadInput(f"that is no answer to this picture ({given.get('value')!r})") from error
        self._log.append_labels([label])
        self._done.append((shown.item, label))
        self._show_next()
        return True

    def back(self) -> bool:
        """Withdraw the last answer and ask again; False when there is none."""
        if not self._done:
            return False
        item, label = self._done[-1]
        self._log.withdraw(label)
        self._done.pop()
        if self.shown is not None:
            self._ahead.appendleft(self.shown.item)
        self._ahead.appendleft(item)
        self._show_next()
        return True

    def skip(self, name: str) -> bool:
        """Leave the shown item unanswered."""
        if self.shown is None or name != self.shown.name:
            return False
        self.total -= 1
        self._show_next()
        return True

    def _show_next(self) -> None:
        if not self._ahead:
            self.shown = None
            return
        item = self._ahead.popleft()
        names = [self._pictures.name(one.path, self._side) for one in item.subjects]
        self.shown = Shown(item, new_id(), names)

    def _label(self, shown: Shown, given: Mapping[str, Any]) -> Label:
        item, value = shown.item, given["value"]
        common: dict[str, Any] = {
            "id": shown.name,
            "rater": self.rater,
            "source": "human",
            "expert_level": self.expert_level,
            "prompt": item.prompt,
            "modality": item.modality,
            "run": item.subjects[0].run,
            "comment": str(given.get("comment", ""))[:LONGEST_COMMENT],
            "blinded": True,
            "seconds": round(time.monotonic() - shown.since, 3),
        }
        if self.task == "pair":
            winner = item.subjects[SIDES.index(value)]
            loser = item.subjects[1 - SIDES.index(value)]
            return Pair(
                **common,
                winner=winner.sha256,
                loser=loser.sha256,
                winner_path=winner.path,
                loser_path=loser.path,
            )
        (subject,) = item.subjects
        common.update(image_sha256=subject.sha256, image_path=subject.path)
        if self.task == "real":
            truth: Literal["real", "synthetic"] = "real" if subject.run is None else "synthetic"
            return RealOrSynthetic(**common, guess=value, truth=truth)
        asked = {name for name, _ in item.findings}
        flags = {name: flag for name, flag in given.get("flags", {}).items() if name in asked}
        return Rating(**common, candidate=subject.candidate, rating=int(value), finding_flags=flags)

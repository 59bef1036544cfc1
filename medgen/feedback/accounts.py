"""What a log holds, counted, and what a reader of the counts should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from medgen.feedback.agreement import agreements
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import LogStats, Rating, Source
from medgen.feedback.schema import VERSION


def log_stats(log: FeedbackLog) -> LogStats:
    """Count a log's rows and labels, and measure how far raters of each source agree."""
    ratings, pairs, guesses = log.ratings(), log.pairs(), log.guesses()
    agreement = [one for source in get_args(Source) for one in agreements(ratings, source)]
    return LogStats(
        log=log.name,
        schema_version=VERSION,
        runs=log.count("runs"),
        candidates=log.count("candidates"),
        chosen=log.chosen(),
        ratings=len(ratings),
        pairs=len(pairs),
        guesses=len(guesses),
        replaced=log.count("labels") - len(ratings) - len(pairs) - len(guesses),
        raters=_counts(one.rater for one in (*ratings, *pairs, *guesses)),
        by_source=_counts(one.source for one in (*ratings, *pairs, *guesses)),
        by_expert_level=_counts(str(one.expert_level or "unknown") for one in ratings),
        by_modality=_counts(one.modality for one in ratings),
        by_rating=_counts(f"{one.rating} of {one.scale}" for one in ratings),
        agreement=agreement,
        notes=_notes(ratings),
    )


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _notes(ratings: list[Rating]) -> list[str]:
    if not ratings:
        return ["no ratings yet: medgen feedback rate, or medgen feedback import"]
    notes = []
    gone = {one.image_path for one in ratings if not Path(one.image_path).is_file()}
    if gone:
        notes.append(f"{len(gone)} rated images are no longer there, such as {min(gone)}")
    if len({one.level for one in ratings}) == 1:
        notes.append("all ratings are equal: nothing can be learned from them")
    people = {one.rater for one in ratings if one.source == "human"}
    if len(people) == 1:
        notes.append(f"one person rated ({people.pop()}): agreement needs two")
    if not people and any(one.source == "simulated" for one in ratings):
        notes.append("no person rated: the simulated ratings say nothing of quality")
    return notes

"""What a log teaches: candidates with features to come, preferences within prompts, and ratings.

Refuses what nothing can be learned from, with a line that says why. Knows no model.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import Label, Pair, Rating
from medgen.feedback.selector_asked import Asked
from medgen.feedback.selector_settings import SelectorSettings

Subject = tuple[str, str]  # image hash, prompt


class Vote(NamedTuple):
    """One preference within a prompt: rows of the better and the worse candidate."""

    better: int
    worse: int
    rater: str
    source: str
    weight: float


class Score(NamedTuple):
    """One rating between 0 (worst) and 1 (best) of a candidate's row."""

    row: int
    level: float
    rater: str
    source: str
    weight: float


@dataclass
class Labelled:
    """Labelled candidates in the log's order, what was said of them, and what should be known.

    `groups` says by what folds are made: "prompt" or "request".
    """

    paths: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    groups: str = "prompt"

    @property
    def prompts(self) -> np.ndarray:
        """(n,) what is never split: prompts, upper case and outer spaces aside, or requests."""
        if self.groups == "request":
            return np.array([_request_of(one) for one in self.asked])
        return np.array([" ".join(one.prompt.casefold().split()) for one in self.asked])

    def only(self, rows: Sequence[int]) -> Labelled:
        """Those rows alone, with the labels on them."""
        place = {row: index for index, row in enumerate(rows)}
        return Labelled(
            [self.paths[row] for row in rows],
            [self.asked[row] for row in rows],
            [
                vote._replace(better=place[vote.better], worse=place[vote.worse])
                for vote in self.votes
                if vote.better in place and vote.worse in place
            ],
            [score._replace(row=place[score.row]) for score in self.scores if score.row in place],
            self.notes,
        )


def labelled_candidates(log: FeedbackLog, settings: SelectorSettings) -> Labelled:
    """Read a log for training.

    Raises:
        BadInput: No labels, none whose image is there, all ratings equal, no prompt with a
            preference, too few of them, or raters who contradict each other as often as not.
    """
    ratings, pairs = log.ratings(), log.pairs()
    if not ratings and not pairs:
        raise BadInput(
            f"feedback log {log.name} has no ratings: medgen feedback rate, or medgen feedback "
            "import; nothing was trained"
        )
    result, rows = Labelled(groups=settings.split_by), {}
    known = {(one.image_sha256, one.prompt): one for one in log.labelled()}
    gone: set[str] = set()

    def row_of(digest: str, path: str, label: Label) -> int | None:
        key = (digest, label.prompt)
        if key not in rows:
            one = known.get(key)
            content = None if one is None else json.loads(one.record)
            place = path
            if content is not None and not Path(place).is_file():
                place = content["drawn"]["image"]
            if not Path(place).is_file():
                gone.add(path)
                return None
            rows[key] = len(result.paths)
            result.paths.append(place)
            result.asked.append(
                Asked(label.prompt, label.modality) if content is None else Asked.of_row(content)
            )
        return rows[key]

    for rating in ratings:
        row = row_of(rating.image_sha256, rating.image_path, rating)
        if row is not None:
            weight = settings.weight(rating)
            result.scores.append(Score(row, rating.level, rating.rater, rating.source, weight))
    for pair in pairs:
        better = row_of(pair.winner, pair.winner_path, pair)
        worse = row_of(pair.loser, pair.loser_path, pair)
        if better is not None and worse is not None:
            weight = settings.weight(pair)
            result.votes.append(Vote(better, worse, pair.rater, pair.source, weight))
    result.votes += votes_of(result.scores, result.asked)
    _note(result, ratings, pairs, gone)
    if not result.paths:
        raise BadInput(
            f"feedback log {log.name}: no rated image is there any more, such as {min(gone)}: "
            "put the images back; nothing was trained"
        )
    return result


def votes_of(scores: Iterable[Score], asked: Sequence[Asked]) -> list[Vote]:
    """Preferences that ratings imply: within a prompt and rater, every two that differ.

    All preferences of a rater in a prompt weigh together as the images that were rated, so that a
    prompt of many candidates does not drown the others.
    """
    groups: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
    for score in scores:
        groups[asked[score.row].prompt, score.rater, score.source].append(score)
    votes = []
    for group in groups.values():
        for one, other in combinations(group, 2):
            if one.level == other.level or one.row == other.row:
                continue
            better, worse = (one, other) if one.level > other.level else (other, one)
            weight = min(one.weight, other.weight) * 2 / len(group)
            votes.append(Vote(better.row, worse.row, one.rater, one.source, weight))
    return votes


def training_labels(data: Labelled, settings: SelectorSettings) -> tuple[list[Vote], list[Score]]:
    """The votes and ratings to train on.

    Raises:
        BadInput: They are none, all equal, too few, or contradict each other.
    """
    votes = [v for v in data.votes if _chosen(v, settings.train_raters) and v.weight > 0]
    scores = [s for s in data.scores if _chosen(s, settings.train_raters) and s.weight > 0]
    if not votes and not scores:
        named = ", ".join(settings.train_raters or ["any source with a weight"])
        raise BadInput(f"no label by {named}: medgen feedback stats lists the raters")
    if not votes:
        if len({score.level for score in scores}) == 1:
            raise BadInput(f"all {len(scores)} ratings are equal: nothing can be learned from them")
        raise BadInput(
            "no prompt has two images that one rater told apart: rate several candidates of a "
            "prompt"
        )
    groups = data.prompts
    prompts = {str(groups[vote.better]) for vote in votes}
    if len(prompts) < settings.least_prompts or len(votes) < settings.least_pairs:
        raise BadInput(
            f"{len(votes)} preferences in {len(prompts)} {data.groups}s: {settings.least_pairs} in "
            f"{settings.least_prompts} are needed to train and to test by prompt; rate more"
        )
    agreeing, repeated = agreement_of(votes)
    if repeated >= settings.least_votes and agreeing / repeated < settings.least_agreement:
        raise BadInput(
            f"the raters contradict each other: they agree on {agreeing} of {repeated} repeated "
            f"preferences, {settings.least_agreement:.0%} are needed; see medgen feedback stats, "
            "or name whom to follow with --train-rater"
        )
    return votes, scores


def judging_votes(data: Labelled, settings: SelectorSettings) -> list[Vote]:
    """The votes that selectors are compared on: none of the verifier's."""
    return [
        vote
        for vote in data.votes
        if vote.source != "verifier" and _chosen(vote, settings.judge_raters)
    ]


def judging_scores(data: Labelled, settings: SelectorSettings) -> list[Score]:
    """The ratings that selectors are compared on: none of the verifier's."""
    return [
        score
        for score in data.scores
        if score.source != "verifier" and _chosen(score, settings.judge_raters)
    ]


def agreement_of(votes: Iterable[Vote]) -> tuple[int, int]:
    """How many couples of votes on one pair of images agree, and how many couples there are."""
    counts: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    for vote in votes:
        low, high = sorted((vote.better, vote.worse))
        counts[low, high][int(vote.better == high)] += 1
    agreeing = sum(a * (a - 1) // 2 + b * (b - 1) // 2 for a, b in counts.values())
    return agreeing, agreeing + sum(a * b for a, b in counts.values())


def folds_of(prompts: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each candidate, prompts whole, each modality's prompts spread by chance."""
    unique = np.unique(prompts)
    order = np.random.default_rng(seed).permutation(len(unique))
    fold = dict(zip(unique[order], np.arange(len(unique)) % folds, strict=True))
    return np.array([fold[prompt] for prompt in prompts])


def _request_of(asked: Asked) -> str:
    """Modality and findings asked for; the prompt where findings are not known."""
    named = sorted(f"{one['status']} {one['side']} {one['finding']}" for one in asked.findings)
    return f"{asked.modality}: {'; '.join(named) or asked.prompt}"


def _chosen(one: Vote | Score, raters: Sequence[str] | None) -> bool:
    return raters is None or one.rater in raters


def _note(
    result: Labelled, ratings: Sequence[Rating], pairs: Sequence[Pair], gone: set[str]
) -> None:
    every: list[Label] = [*ratings, *pairs]
    if gone:
        result.notes.append(f"{len(gone)} labelled images are gone, such as {min(gone)}: left out")
    raters = {one.rater for one in every}
    if len(raters) == 1:
        result.notes.append(
            f"one rater ({raters.pop()}): what is learned is this rater's view, and how far others "
            "would agree is not known"
        )
    if all(one.source != "human" for one in every):
        result.notes.append("no label is a person's: the selector says nothing of what people see")

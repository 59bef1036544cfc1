"""What the log says of images, as a policy learns it: rewards within what was told, and pairs.

Refuses what nothing can be learned from, in one line: no labels, one image a prompt, all ratings
alike, raters who contradict each other, images that are gone. Labels of the sources asked for
count, no others. Knows the log; knows no tensors and no generator.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from medgen.errors import BadInput
from medgen.feedback.agreement import agreements
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import LoggedCandidate, Pair, Rating, Source
from medgen.records import Conditioning

GONE_SHARE = 0.5  # with more of the images gone than this, what is left is another log
ALIKE = 1e-6
TOLD = ("prompt", "negative_prompt", "modality", "structured")
PARTNERS = 32  # images that each image is paired with, of a group of more


@dataclass(frozen=True)
class Example:
    """One image: what it was told, the prompt it answers, and its reward (higher is better).

    `group` numbers what the generator was told (words and numbers, not the noise): images are
    compared within a group only, for there alone a difference is the image's own. `logged` is the
    log's record, None for an image that only a label names.
    """

    sha256: str
    path: str
    prompt: str
    modality: str
    conditioning: Conditioning
    reward: float
    group: int
    logged: LoggedCandidate | None = None


Reward = Callable[[Sequence[Example]], np.ndarray]
"""Scores of images, (n,), comparable within a group: a trained selector's."""

Prompt = tuple[str, str]


@dataclass(frozen=True)
class Preferences:
    """Examples of at least one group with a better and a worse image.

    `pairs` are (better, worse) indices of one group; `labels` counts labels by source.
    """

    examples: tuple[Example, ...]
    pairs: tuple[tuple[int, int], ...]
    labels: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def prompts(self) -> set[Prompt]:
        """(modality, prompt) of the examples."""
        return {(one.modality, one.prompt) for one in self.examples}

    def where(self, prompts: set[Prompt]) -> Preferences:
        """Only the examples of some prompts, and the pairs among them."""
        kept = [i for i, one in enumerate(self.examples) if (one.modality, one.prompt) in prompts]
        place = {old: new for new, old in enumerate(kept)}
        return replace(
            self,
            examples=tuple(self.examples[i] for i in kept),
            pairs=tuple((place[a], place[b]) for a, b in self.pairs if a in place and b in place),
        )


@dataclass
class _Image:
    path: str
    prompt: str
    modality: str
    told: Conditioning
    logged: LoggedCandidate | None = None
    levels: list[tuple[float, float]] = field(default_factory=list)
    wins: float = 0.0
    losses: float = 0.0

    def reward(self) -> float | None:
        """Mean rating by expert level, else the share of comparisons won; None without labels."""
        if self.levels:
            weight = sum(w for _, w in self.levels)
            return sum(level * w for level, w in self.levels) / weight
        met = self.wins + self.losses
        return self.wins / met if met else None


def read_preferences(
    log: FeedbackLog,
    *,
    sources: Sequence[Source],
    modalities: Sequence[str],
    least_difference: float,
    raters: Sequence[str] = (),
    same_noise: bool = False,
    reward: Reward | None = None,
) -> Preferences:
    """Read a log into rewards and pairs.

    Args:
        log: An opened log.
        sources: Whose labels count.
        modalities: Modality cards' names that can be trained; others are left out, and told.
        least_difference: Of two rewards (0-1 for ratings), for their images to be a pair.
        raters: Of these, only whose labels count; all raters when empty.
        same_noise: Only images drawn from one noise are pairs: a steered one and its plain one.
        reward: A selector that scores all images of the log, rated or not; labels when None.

    Raises:
        BadInput: Nothing can be learned from the log.
    """
    ratings = [one for source in sources for one in log.ratings(source=source)]
    choices = [one for source in sources for one in log.pairs(source=source)]
    said = " or ".join(sources)
    if raters:
        ratings = [one for one in ratings if one.rater in raters]
        choices = [one for one in choices if one.rater in raters]
        said += f" raters named {', '.join(raters)}"
    if not ratings and not choices:
        raise BadInput(
            f"the feedback log {log.name} holds no labels by {said}: medgen feedback rate, or "
            "name other `sources`"
        )
    notes = _refuse_contradictions(log, ratings)
    images = _images(log.candidates(), ratings, choices, everything=reward is not None)
    left_out = Counter(one.modality for one in images.values() if one.modality not in modalities)
    notes += [f"{n} images of {m} left out: not drawn here" for m, n in sorted(left_out.items())]
    images = {key: one for key, one in images.items() if one.modality in modalities}
    there = {key: one for key, one in images.items() if Path(one.path).is_file()}
    gone = len(images) - len(there)
    if gone and gone > GONE_SHARE * len(images):
        raise BadInput(
            f"{gone} of {len(images)} labelled images of {log.name} are no longer there: put them "
            "back, or train on a log whose images are"
        )
    if gone:
        notes.append(f"{gone} of {len(images)} images are no longer there and were left out")
    examples = _examples(there, reward)
    counted = Counter(one.source for one in (*ratings, *choices))
    pairs = _pairs(examples, choices, least_difference, same_noise)
    if not pairs:
        alike = "told the same on the same noise" if same_noise else "told the same"
        raise BadInput(
            f"nothing can be learned from {log.name}: of {', '.join(modalities)} no two images "
            f"for which the generator was {alike} are told apart by {said} labels"
        )
    return Preferences(tuple(examples), tuple(pairs), dict(sorted(counted.items())), tuple(notes))


def _refuse_contradictions(log: FeedbackLog, ratings: Sequence[Rating]) -> list[str]:
    notes = []
    for source in sorted({one.source for one in ratings}):
        raters = {one.rater for one in ratings if one.source == source}
        if len(raters) == 1:
            notes.append(f"one {source} rater ({min(raters)}): nobody can tell how sure these are")
        for agreement in agreements(list(ratings), source):
            if agreement.alpha is not None and agreement.alpha <= 0:
                raise BadInput(
                    f"the {source} raters of {log.name} contradict each other (Krippendorff's "
                    f"alpha {agreement.alpha:.2f} on {agreement.shared_images} shared images): "
                    "settle that before training on it"
                )
        if source == "simulated":
            notes.append("labels are simulated: no person rated them")
    return notes


def _images(
    candidates: Sequence[LoggedCandidate],
    ratings: Sequence[Rating],
    choices: Sequence[Pair],
    everything: bool,
) -> dict[tuple[str, str], _Image]:
    """Images by hash and prompt, with what was said of them."""
    drawn = {(one.image_sha256, one.prompt): one for one in candidates}
    images: dict[tuple[str, str], _Image] = {}

    def image(sha256: str, path: str, label: Rating | Pair) -> _Image:
        key = sha256, label.prompt
        if key not in images:
            one = drawn.get(key)
            told = Conditioning(prompt=label.prompt, modality=label.modality)
            images[key] = _Image(
                path=one.image_path if one and Path(one.image_path).is_file() else path,
                prompt=label.prompt,
                modality=label.modality,
                told=one.drawn.conditioning if one else told,
                logged=one,
            )
        return images[key]

    for rating in ratings:
        weight = float(rating.expert_level or 1)
        image(rating.image_sha256, rating.image_path, rating).levels.append((rating.level, weight))
    for choice in choices:
        image(choice.winner, choice.winner_path, choice).wins += 1
        image(choice.loser, choice.loser_path, choice).losses += 1
    if everything:
        for (sha256, prompt), one in drawn.items():
            told = one.drawn.conditioning
            found = _Image(one.image_path, prompt, one.modality, told, one)
            images.setdefault((sha256, prompt), found)
    return images


def _examples(images: dict[tuple[str, str], _Image], reward: Reward | None) -> list[Example]:
    groups: dict[str, int] = {}
    examples = []
    for (sha256, _), one in sorted(images.items()):
        told = one.told.model_dump_json(include=set(TOLD))
        group = groups.setdefault(told, len(groups))
        known = one.reward()
        examples.append(
            Example(
                sha256=sha256,
                path=one.path,
                prompt=one.prompt,
                modality=one.modality,
                conditioning=one.told,
                reward=0.0 if known is None else known,
                group=group,
                logged=one.logged,
            )
        )
    if reward is None or not examples:
        return examples
    scores = np.asarray(reward(examples), dtype=float)
    return [replace(one, reward=float(score)) for one, score in zip(examples, scores, strict=True)]


def _pairs(
    examples: Sequence[Example],
    choices: Sequence[Pair],
    least_difference: float,
    same_noise: bool,
) -> list[tuple[int, int]]:
    members: dict[tuple[int, int | None], list[int]] = defaultdict(list)
    for index, one in enumerate(examples):
        noise = one.conditioning.seed if same_noise else None
        members[one.group, noise].append(index)
    votes = Counter((one.prompt, one.winner, one.loser) for one in choices)
    pairs = []
    for own in members.values():
        for i, j in _met(own):
            one, other = examples[i], examples[j]
            gap = one.reward - other.reward
            # A choice between just these two tells more than their averages.
            direct = votes[one.prompt, one.sha256, other.sha256]
            direct -= votes[one.prompt, other.sha256, one.sha256]
            if direct:
                pairs.append((i, j) if direct > 0 else (j, i))
            elif abs(gap) >= max(least_difference, ALIKE):
                pairs.append((i, j) if gap > 0 else (j, i))
    return pairs


def _met(members: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Which members of a group are compared: all pairs, of a large group a spread of them."""
    if len(members) <= PARTNERS:
        yield from combinations(members, 2)
        return
    steps = np.unique(np.linspace(1, len(members) // 2, PARTNERS // 2).astype(int))
    for place, one in enumerate(members):
        for step in steps:
            yield one, members[(place + int(step)) % len(members)]


def held_out_prompts(preferences: Preferences, percent: int) -> set[Prompt]:
    """Prompts that training never sees, carved by their text, at least one a modality.

    A modality keeps them all for training where it has fewer than four with a pair among them.
    """
    found: set[Prompt] = set()
    telling: dict[str, set[Prompt]] = defaultdict(set)
    for pair in preferences.pairs:
        for one in (preferences.examples[i] for i in pair):
            telling[one.modality].add((one.modality, one.prompt))
    for prompts in telling.values():
        order = sorted(prompts, key=lambda one: hashlib.sha256("|".join(one).encode()).digest())
        if len(order) >= 4:
            found |= set(order[: max(1, round(len(order) * percent / 100))] if percent else [])
    return found

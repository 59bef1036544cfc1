"""From a log to a selector in a folder of its own: read, cross-fit, compare, train on all, write.

The selector is written whether or not it beats its baselines; its card says so, and the agent uses
only one that does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit

from medgen.data.images import load_square
from medgen.errors import BadInput
from medgen.feedback.exchange import log_digest
from medgen.feedback.log import FeedbackLog
from medgen.feedback.selector import Reward, require_new, save_reward
from medgen.feedback.selector_asked import Vocabulary
from medgen.feedback.selector_card import Ablation, Contest, SelectorCard
from medgen.feedback.selector_contest import (
    CLIP,
    OURS,
    VERIFIER,
    bootstrap,
    contests,
    verdict,
    won,
)
from medgen.feedback.selector_data import (
    Labelled,
    Vote,
    folds_of,
    judging_scores,
    judging_votes,
    labelled_candidates,
    training_labels,
)
from medgen.feedback.selector_features import (
    Features,
    assemble,
    clip_similarities,
    encoder_fingerprints,
    image_features,
)
from medgen.feedback.selector_settings import SelectorSettings
from medgen.feedback.selector_training import (
    Lessons,
    cross_fit,
    fit,
    isotonic_knots,
    rewards_of,
    temperature_of,
)
from medgen.measure.statistics import calibration_error

SIDE = 256  # pixels that images are read at, as drawn; encoders shrink them
BATCH = 64
Progress = Callable[[str, int, int], None]  # what is done, how many of them, of how many


@dataclass(frozen=True)
class Prepared:
    """A log ready to learn from: readable candidates, their features, labels and folds.

    `clip` (n,) are the cosines of image and prompt; `labels` counts preferences and ratings that
    teach, `trained_on` the preferences by source.
    """

    data: Labelled
    features: Features
    clip: np.ndarray
    lessons: Lessons
    folds: np.ndarray
    labels: int
    trained_on: dict[str, int]


def silent(what: str, done: int, total: int) -> None:
    """No progress."""


def prepare(log: FeedbackLog, settings: SelectorSettings, progress: Progress = silent) -> Prepared:
    """Read a log and its images for training.

    Raises:
        BadInput: The log teaches nothing (see `selector_data`).
    """
    data = labelled_candidates(log, settings)
    training_labels(data, settings)  # refused before images are read
    features, clip, data = _features(data, progress)
    votes, scores = training_labels(data, settings)
    folds = folds_of(data.prompts, settings.folds, settings.seed)
    lessons = Lessons.of(votes, scores)
    return Prepared(data, features, clip, lessons, folds, len(votes) + len(scores), _counted(votes))


def train_selector(
    log: FeedbackLog,
    out: Path,
    settings: SelectorSettings,
    ablate: bool = False,
    progress: Progress = silent,
) -> SelectorCard:
    """Train a selector on a log and write it to a new folder.

    Args:
        log: Where labels and candidates are.
        out: The folder, which must not be there.
        settings: Of features, training and whose labels count.
        ablate: Also cross-fit each part alone and all parts but one.
        progress: Told of every step.

    Returns:
        The card that was written.

    Raises:
        BadInput: The folder is there, or the log teaches nothing (see `selector_data`); nothing
            was written.
    """
    require_new(out)
    ready = prepare(log, settings, progress)
    data, features, lessons = ready.data, ready.features, ready.lessons
    prompts, folds = data.prompts, ready.folds
    judging = judging_votes(data, settings)

    numbers = count(1)

    def folded() -> None:
        progress("folds", next(numbers), settings.folds + 1)

    crossed = cross_fit(features, lessons, prompts, folds, settings, folded)
    found = contests(
        {OURS: crossed.rewards, CLIP: ready.clip, VERIFIER: verifier_scores(data)},
        judging,
        judging_scores(data, settings),
        prompts,
        [asked.modality for asked in data.asked],
        settings.resamples,
        settings.seed,
    )
    usable, why = verdict(found)
    validation = folds == 0
    head = fit(features, lessons, ~validation, validation, prompts, settings, settings.seed)
    every, held = rewards_of(head, features), lessons.within(validation)
    temperature = temperature_of(every, held)
    folded()
    card = SelectorCard(
        log=log.name,
        log_digest=log_digest(log),
        labels=ready.labels,
        candidates=len(data.paths),
        prompts=len(np.unique(prompts)),
        trained_on=ready.trained_on,
        judged_by=_counted(judging),
        settings=settings,
        vocabulary=_vocabulary(data),
        widths=features.widths(),
        encoders=encoder_fingerprints(),
        temperature=temperature,
        knots=isotonic_knots(every / temperature, held),
        calibration_error=_calibration_error(crossed.rewards, judging),
        usable=usable,
        why=why,
        contests=found,
        ablations=_ablations(features, lessons, data, folds, judging, settings, progress)
        if ablate and judging
        else [],
        notes=data.notes,
    )
    save_reward(Reward(head, card), out)
    return card


def _vocabulary(data: Labelled) -> Vocabulary:
    return Vocabulary.of(data.asked)


def _features(data: Labelled, progress: Progress) -> tuple[Features, np.ndarray, Labelled]:
    """Features and CLIP cosines of all candidates; images that cannot be read leave the data."""
    seen, cosines, kept = [], [], []
    for start in range(0, len(data.paths), BATCH):
        rows, images = [], []
        for row in range(start, min(start + BATCH, len(data.paths))):
            try:
                images.append(load_square(data.paths[row], SIDE))
            except BadInput:
                data.notes.append(f"{data.paths[row]} is no readable image: left out")
                continue
            rows.append(row)
        if rows:
            pixels = np.stack(images)
            seen.append(image_features(pixels))
            cosines.append(clip_similarities(pixels, [data.asked[row].prompt for row in rows]))
            kept += rows
        progress("images", min(start + BATCH, len(data.paths)), len(data.paths))
    if not kept:
        raise BadInput(f"none of {len(data.paths)} labelled images can be read: nothing trained")
    data = data.only(kept)
    features = assemble(torch.cat(seen), data.asked, _vocabulary(data))
    return features, np.concatenate(cosines), data


def verifier_scores(data: Labelled) -> np.ndarray:
    """(n,) the critiques' scores, NaN where there is none."""
    return np.array(
        [np.nan if one.critique is None else one.critique["score"] for one in data.asked]
    )


def _calibration_error(rewards: np.ndarray, votes: Sequence[Vote]) -> float | None:
    """Expected calibration error of the held-out preference probabilities."""
    if not votes:
        return None
    gap = rewards[[v.better for v in votes]] - rewards[[v.worse for v in votes]]
    confidence = expit(np.abs(gap))
    return round(calibration_error(confidence, gap > 0), 4)


def _ablations(
    features: Features,
    lessons: Lessons,
    data: Labelled,
    folds: np.ndarray,
    judging: Sequence[Vote],
    settings: SelectorSettings,
    progress: Progress,
) -> list[Ablation]:
    """Each part alone and all but one, cross-fitted and judged as the whole."""
    active = settings.active
    subsets: list[tuple[str, ...]] = [(part,) for part in active if part in ("image", "critique")]
    subsets += list(combinations(active, len(active) - 1)) if len(active) > 1 else []
    found, prompts = [], data.prompts
    names = [str(prompts[vote.better]) for vote in judging]
    subsets = list(dict.fromkeys(subsets))
    for number, subset in enumerate(subsets):
        parts = {part: part in subset for part in settings.parts}
        changed = settings.model_copy(update={"parts": parts})
        crossed = cross_fit(features, lessons, prompts, folds, changed)
        accuracy = bootstrap(
            won(crossed.rewards, judging), names, settings.resamples, settings.seed
        )
        found.append(Ablation(parts=list(subset), accuracy=accuracy))
        progress("ablations", number + 1, len(subsets))
    return found


def _counted(votes: Iterable[Vote]) -> dict[str, int]:
    """Preferences by source."""
    return dict(sorted(Counter(vote.source for vote in votes).items()))


def headline(card: SelectorCard) -> Contest | None:
    """The contest over all judges and modalities; None where nothing could be compared."""
    return next((one for one in card.contests if (one.judge, one.scope) == ("all", "all")), None)

"""Which images a rater is asked about: from the feedback log, and from a folder of real images.

Orders say nothing of what drew an image. Knows the log and files; knows no page.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from PIL import Image

from medgen.data.images import pixel_sha256
from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import LoggedCandidate
from medgen.graphs.outcome import phrase
from medgen.graphs.verify import image_files
from medgen.studio.rating import Item, Subject

PAIRS_A_PROMPT = 3
MISSING_ALLOWED = 200  # files that may be gone before the queue looks shorter than it is


def to_rate(log: FeedbackLog, rater: str, modality: str | None, count: int) -> list[Item]:
    """Images that the rater has not rated yet, in the order that the log gives to all raters."""
    found = log.queue(rater, modality=modality, limit=count + MISSING_ALLOWED)
    return [_item([one]) for one in found if Path(one.image_path).is_file()][:count]


def to_compare(log: FeedbackLog, rater: str, modality: str | None, count: int) -> list[Item]:
    """Pairs of images of one prompt that the rater has not compared yet."""
    of_prompt: dict[tuple[str, str], dict[str, LoggedCandidate]] = defaultdict(dict)
    for one in log.candidates(modality=modality):
        of_prompt[one.prompt, one.modality].setdefault(one.image_sha256, one)
    compared = {(pair.subject, pair.prompt) for pair in log.pairs(rater=rater)}
    items: list[tuple[str, Item]] = []
    for drawn in of_prompt.values():
        keyed = []
        for left, right in combinations(drawn.values(), 2):
            subject = "+".join(sorted((left.image_sha256, right.image_sha256)))
            key = hashlib.sha256(f"{rater}/{subject}".encode()).hexdigest()
            keyed.append((key, subject, left, right))
        for key, subject, left, right in sorted(keyed, key=lambda one: one[0])[:PAIRS_A_PROMPT]:
            there = Path(left.image_path).is_file() and Path(right.image_path).is_file()
            if (subject, left.prompt) not in compared and there:
                turned = int(key[-1], 16) % 2
                items.append((key, _item([right, left] if turned else [left, right])))
    return [item for _, item in sorted(items, key=lambda one: one[0])][:count]


def to_tell_apart(
    log: FeedbackLog, rater: str, modality: str, real: Path, count: int
) -> tuple[list[Item], int]:
    """Real and drawn images in equal numbers, mixed, that the rater has not judged yet.

    Args:
        log: Holds the drawn ones; results of runs alone are taken.
        rater: Who judges.
        modality: Of both kinds.
        real: A folder of real images of that modality.
        count: How many at most.

    Returns:
        The items, and the side in pixels to which all have to be brought: that of the smallest
        drawn one.

    Raises:
        BadInput: There are no drawn or no real images.
    """
    judged = {guess.image_sha256 for guess in log.guesses(rater=rater)}
    found = [one for one in log.candidates(modality=modality) if one.chosen]
    drawn = {
        one.image_sha256: Subject(one.image_path, one.image_sha256, one.run, one.drawn.id)
        for one in found
        if one.image_sha256 not in judged and Path(one.image_path).is_file()
    }
    if not drawn:
        raise BadInput(f"no drawn {modality} left to judge: draw some first")
    mixed = random.SystemRandom()
    files = image_files(real)
    mixed.shuffle(files)
    photographed: dict[str, Subject] = {}
    for path in files:
        if len(photographed) == min(len(drawn), count // 2):
            break
        sha256 = pixel_sha256(path)
        if sha256 not in judged:
            photographed[sha256] = Subject(str(path.resolve()), sha256)
    if not photographed:
        raise BadInput("no real image left to judge: start the studio with a larger --real folder")
    chosen = mixed.sample(list(drawn.values()), len(photographed))
    subjects = [*chosen, *photographed.values()]
    mixed.shuffle(subjects)
    side = min(min(_size(one.path)) for one in chosen)
    return [Item((one,), prompt="", modality=modality) for one in subjects], side


def _size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _item(drawn: list[LoggedCandidate]) -> Item:
    first = drawn[0]
    critique = first.drawn.critique
    asked = {one.finding: phrase(one) for one in critique.findings} if critique else {}
    subjects = [Subject(one.image_path, one.image_sha256, one.run, one.drawn.id) for one in drawn]
    return Item(tuple(subjects), first.prompt, first.modality, tuple(asked.items()))

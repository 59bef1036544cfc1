"""How near one modality's synthetic images are to its training images, and how near strangers are.

Takes what is kept of images (`Kept`), searches (`neighbours.py`) and resamples. Where a modality
has too few real test images, real and training images together are the strangers, each against
the training images of other groups. Writes no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from medgen.evaluation.context import Context
from medgen.evaluation.figures import LEAST, OVERALL, interval, resamples
from medgen.evaluation.neighbours import Neighbours, Views
from medgen.evaluation.tables import ImageTable
from medgen.measure.build_memorisation import DISTORTIONS, distorted
from medgen.measure.statistics import share_interval

MEDIAN = "median distance to the nearest training image"
RATIO = "median distance, synthetic over real"
COPIES = "near-copies"
AUTHENTIC = "authenticity"
SPOILT = "spoilt copies found"
SHARES = (COPIES, AUTHENTIC, SPOILT)
REAL_AS_TESTED = "real test images against the training images"
TRAINING_AS_REAL = (
    "too few real test images: real and training images, each against training images of other "
    "groups"
)


@lru_cache
def rules() -> dict:
    """The numbers of `privacy.yaml`."""
    path = Path(__file__).with_name("privacy.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Space:
    """One way to say how near two images are.

    `keep` turns (n, H, H, 3) uint8 images into what is kept of them; `views` makes, from what is
    kept of the training images, the function that turns kept images into vectors.
    """

    scorer: str
    keep: Callable[[np.ndarray], np.ndarray]
    views: Callable[[np.ndarray], Views]


@dataclass(frozen=True)
class Kept:
    """What is kept of a table's images: one form a space (by scorer), and digests of the pixels."""

    table: ImageTable
    forms: dict[str, np.ndarray]
    digests: np.ndarray

    def of(self, modal: str) -> Kept:
        """Only the images of one modality."""
        chosen = np.array([i for i, row in enumerate(self.table.rows) if row.modal == modal], int)
        return Kept(
            self.table.take(chosen),
            {scorer: form[chosen] for scorer, form in self.forms.items()},
            self.digests[chosen],
        )


@dataclass(frozen=True)
class Nearness:
    """Distances of one modality in one space, with their bootstrap.

    `synthetic` and `real` are (n,) distances 0-2 to the nearest training image, `nearest` the
    positions of the synthetic images' nearest; `spoilt` are distances of training images spoilt
    on purpose. `values` maps a metric, or "real " and a metric, to its value, `replicates` to its
    bootstrap values. `patients` counts the groups of the real images.
    """

    modal: str
    scorer: str
    synthetic: np.ndarray
    nearest: np.ndarray
    real: np.ndarray
    floor_of: str
    spoilt: np.ndarray
    patients: int
    values: dict[str, float]
    replicates: dict[str, np.ndarray]

    @property
    def threshold(self) -> float:
        """The distance below which an image is a near-copy."""
        return threshold(self.real)

    def bounds(self, name: str) -> tuple[float, float]:
        """95 % interval; Wilson's where a share is 0 or 1, which resampling cannot widen."""
        low, high = interval(self.replicates[name])
        metric = name.removeprefix("real ")
        if metric in SHARES and low == high:
            # Given its prompt each synthetic image is drawn anew; images of one patient are not.
            count = len(self.synthetic) if name == metric else self.patients
            count = len(self.spoilt) if metric == SPOILT else count
            return share_interval(round(self.values[name] * count), count)
        return low, high

    def difference(self, metric: str) -> tuple[float, float, float]:
        """Synthetic minus real of a share, with its 95 % interval."""
        real = self.values[f"real {metric}"]
        gaps = self.replicates[metric] - self.replicates[f"real {metric}"]
        low, high = interval(gaps)
        if np.ptp(self.replicates[metric]) == 0:
            bounds = self.bounds(metric)
            low, high = min(low, bounds[0] - real), max(high, bounds[1] - real)
        return self.values[metric] - real, low, high


def threshold(real: np.ndarray) -> float:
    """The distance to the nearest training image that few real strangers fall below."""
    return float(np.quantile(real, rules()["near_copy_share"]))


def nearness(
    context: Context, space: Space, synthetic: Kept, real: Kept, train: Kept
) -> Nearness | str:
    """Distances of one modality's images in one space, or one line on why there are too few."""
    n, n_real, n_train = (len(part.table) for part in (synthetic, real, train))
    if n < LEAST or n_real + n_train < LEAST or len(np.unique(train.table.groups)) < 2:
        return (
            f"{n} synthetic, {n_real} real test and {n_train} training images; {LEAST} synthetic "
            f"and {LEAST} real ones of several groups are needed"
        )
    modal = synthetic.table.rows[0].modal
    ours, tested, known = (part.forms[space.scorer] for part in (synthetic, real, train))
    index = Neighbours(known, train.table.groups, space.views(known))
    distances, nearest = index.nearest(ours)
    groups = real.table.groups
    if n_real >= LEAST:
        real_distances, real_nearest = index.nearest(tested)
    else:
        groups = np.concatenate([groups, train.table.groups]) if n_real else train.table.groups
        strangers = np.concatenate([tested, known]) if n_real else known
        real_distances, real_nearest = index.nearest(strangers, groups)
    own = np.full(n_train, np.nan)
    hit = np.unique(np.concatenate([nearest, real_nearest]))
    own[hit] = index.own_distance(hit)
    authentic, real_authentic = distances > own[nearest], real_distances > own[real_nearest]
    spoilt = index.nearest(space.keep(_spoilt(context, train.table, modal)))[0]

    def values(chosen: np.ndarray, chosen_real: np.ndarray) -> dict[str, float]:
        mine, theirs = distances[chosen], real_distances[chosen_real]
        limit = threshold(theirs)
        return {
            MEDIAN: float(np.median(mine)),
            RATIO: float(np.median(mine) / max(float(np.median(theirs)), 1e-9)),
            COPIES: float(np.mean(mine < limit)),
            AUTHENTIC: float(np.mean(authentic[chosen])),
            SPOILT: float(np.mean(spoilt < limit)),
            f"real {MEDIAN}": float(np.median(theirs)),
            f"real {COPIES}": float(np.mean(theirs < limit)),
            f"real {AUTHENTIC}": float(np.mean(real_authentic[chosen_real])),
        }

    clusters = _clusters(synthetic.table)
    chance = context.chance("privacy", space.scorer, modal)
    samples = [
        values(chosen, chosen_real)
        for chosen, chosen_real in zip(
            resamples(clusters, chance, context.repetitions),
            resamples(groups, chance, context.repetitions),
            strict=True,
        )
    ]
    return Nearness(
        modal=modal,
        scorer=space.scorer,
        synthetic=distances,
        nearest=nearest,
        real=real_distances,
        floor_of=REAL_AS_TESTED if n_real >= LEAST else TRAINING_AS_REAL,
        spoilt=spoilt,
        patients=len(np.unique(groups)),
        values=values(np.arange(n), np.arange(len(real_distances))),
        replicates={name: np.array([one[name] for one in samples]) for name in samples[0]},
    )


def together(each: Sequence[Nearness]) -> Nearness:
    """The modalities of one space together, each weighing as its synthetic images.

    Shares are means, the ratio of medians is a geometric mean.
    """
    weights = np.array([len(near.synthetic) for near in each], dtype=float)
    weights /= weights.sum()

    def mean(name: str, parts: Sequence[np.ndarray | float]) -> np.ndarray:
        stacked = np.stack([np.asarray(part, dtype=float) for part in parts])
        if name == RATIO:
            return np.asarray(np.exp(weights @ np.log(np.maximum(stacked, 1e-9))))
        return np.asarray(weights @ stacked)

    names = list(each[0].values)
    return Nearness(
        modal=OVERALL,
        scorer=each[0].scorer,
        synthetic=np.concatenate([near.synthetic for near in each]),
        nearest=np.concatenate([near.nearest for near in each]),
        real=np.concatenate([near.real for near in each]),
        floor_of="real images, the modalities weighing as in the synthetic table",
        spoilt=np.concatenate([near.spoilt for near in each]),
        patients=sum(near.patients for near in each),
        values={name: float(mean(name, [near.values[name] for near in each])) for name in names},
        replicates={name: mean(name, [near.replicates[name] for near in each]) for name in names},
    )


def _clusters(table: ImageTable) -> np.ndarray:
    """What to resample: prompts (groups), or single images where the prompts are few."""
    if len(np.unique(table.groups)) < rules()["fewest_groups"]:
        return np.arange(len(table))
    return table.groups


def _spoilt(context: Context, train: ImageTable, modal: str) -> np.ndarray:
    """Training images with one distortion each, as memorised images come out."""
    count = min(rules()["spoilt_copies"], len(train))
    chosen = context.chance("spoilt", modal).choice(len(train), count, replace=False)
    return np.stack(
        [
            distorted(image, DISTORTIONS[place % len(DISTORTIONS)], seed=place)
            for place, image in enumerate(train.images(chosen))
        ]
    )

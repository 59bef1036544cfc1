"""Training of the selector's head by Bradley-Terry and rating regression, and its calibration.

Cross-fitted by prompt: each fold is scored by a head that saw none of its prompts, neither in
training nor in stopping. Knows features and labels; knows no log and no file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medgen.feedback.selector_data import Score, Vote
from medgen.feedback.selector_features import Features
from medgen.feedback.selector_head import RewardHead, bradley_terry, rating_regression
from medgen.feedback.selector_settings import SelectorSettings

CHECK = 5  # steps between two looks at the validation loss
LEAST_FOR_ISOTONIC = 30
LEAST_FOR_TEMPERATURE = 10
TEMPERATURES = np.exp(np.linspace(np.log(0.05), np.log(20.0), 121))


@dataclass(frozen=True)
class Lessons:
    """Labels as tensors: pairs of rows with weights, and rated rows with levels and weights."""

    better: Tensor
    worse: Tensor
    weight: Tensor
    row: Tensor
    level: Tensor
    row_weight: Tensor

    @classmethod
    def of(cls, votes: Sequence[Vote], scores: Sequence[Score]) -> Lessons:
        """Of votes and scores."""
        return cls(
            torch.tensor([vote.better for vote in votes], dtype=torch.long),
            torch.tensor([vote.worse for vote in votes], dtype=torch.long),
            torch.tensor([vote.weight for vote in votes], dtype=torch.float32),
            torch.tensor([score.row for score in scores], dtype=torch.long),
            torch.tensor([score.level for score in scores], dtype=torch.float32),
            torch.tensor([score.weight for score in scores], dtype=torch.float32),
        )

    def within(self, inside: np.ndarray) -> Lessons:
        """Those on rows where (n,) `inside` is true; a vote's two rows are of one prompt."""
        chosen = torch.from_numpy(inside)
        votes, rows = chosen[self.better], chosen[self.row]
        return Lessons(
            self.better[votes],
            self.worse[votes],
            self.weight[votes],
            self.row[rows],
            self.level[rows],
            self.row_weight[rows],
        )

    def drawn(self, most: int, generator: torch.Generator) -> Lessons:
        """At most so many votes and ratings, drawn without replacement."""
        votes = _some(len(self.better), most, generator)
        rows = _some(len(self.row), most, generator)
        return Lessons(
            self.better[votes],
            self.worse[votes],
            self.weight[votes],
            self.row[rows],
            self.level[rows],
            self.row_weight[rows],
        )


def _some(count: int, most: int, generator: torch.Generator) -> Tensor:
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:most]


def loss_of(
    head: RewardHead, features: Features, lessons: Lessons, regression: float, bags: Tensor
) -> Tensor:
    """The training loss, summed over members.

    Args:
        head: What is trained.
        features: Of n candidates.
        lessons: What to learn.
        regression: Weight of the rating regression.
        bags: (members, n) how often each member drew each row's prompt.
    """
    rows, place = torch.cat([lessons.better, lessons.worse, lessons.row]).unique(
        return_inverse=True
    )
    rewards = head(features, rows)
    better, worse, rated = place.split([len(lessons.better), len(lessons.worse), len(lessons.row)])
    total = torch.zeros(())
    for member, bag in zip(rewards, bags, strict=True):
        pairs = lessons.weight * bag[lessons.better]
        total = total + bradley_terry(member[better], member[worse], pairs)
        if regression and len(rated):
            weights = lessons.row_weight * bag[lessons.row]
            total = total + regression * rating_regression(member[rated], lessons.level, weights)
    return total


def fit(
    features: Features,
    lessons: Lessons,
    training: np.ndarray,
    validation: np.ndarray,
    prompts: np.ndarray,
    settings: SelectorSettings,
    seed: int,
) -> RewardHead:
    """Train a head, stopped by the validation prompts' Bradley-Terry loss.

    Args:
        features: Of n candidates.
        lessons: All labels to learn from; only those of the chosen rows are used.
        training: (n,) bool.
        validation: (n,) bool, other prompts.
        prompts: (n,) by which members are bagged.
        settings: Of the training.
        seed: Same seed and same data, same head.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    head = RewardHead(
        features.widths(),
        settings.active,
        width=settings.width,
        dropout=settings.dropout,
        members=settings.members,
    )
    head.fit_standard(features, torch.from_numpy(np.flatnonzero(training)))
    taught, held = lessons.within(training), lessons.within(validation)
    head.trust_scores(1 / temperature_of(rewards_of(head.eval(), features), taught))
    bags = _bags(prompts, settings.members, seed)
    even = torch.ones_like(bags)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    best, kept, since = float("inf"), copy.deepcopy(head.state_dict()), 0
    for step in range(settings.steps):
        if step % CHECK == 0 and len(held.better):
            head.eval()
            with torch.no_grad():
                loss = float(loss_of(head, features, held, 0.0, even))
            since += CHECK
            if loss < best:
                best, kept, since = loss, copy.deepcopy(head.state_dict()), 0
            if since > settings.patience:
                break
        head.train()
        batch = taught.drawn(settings.batch, generator)
        optimizer.zero_grad(set_to_none=True)
        loss_of(head, features, batch, settings.regression, bags).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()
    if len(held.better):
        head.load_state_dict(kept)
    return head.eval().requires_grad_(False)


def _bags(prompts: np.ndarray, members: int, seed: int) -> Tensor:
    """(members, n) how often each member drew each row's prompt, with replacement."""
    unique, place = np.unique(prompts, return_inverse=True)
    draws = np.random.default_rng(seed)
    counts = draws.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=members)
    return torch.from_numpy(counts[:, place].astype(np.float32))


@torch.inference_mode()
def rewards_of(head: RewardHead, features: Features, batch: int = 4096) -> np.ndarray:
    """(n,) mean rewards over the members."""
    rows = torch.arange(len(features))
    parts = [head(features, rows[at : at + batch]).mean(0) for at in range(0, len(features), batch)]
    return torch.cat(parts).numpy()


def temperature_of(rewards: np.ndarray, lessons: Lessons) -> float:
    """The temperature that makes sigmoid(difference / temperature) the likeliest (Guo et al. 2017).

    1 where there are too few votes to tell.
    """
    if len(lessons.better) < LEAST_FOR_TEMPERATURE:
        return 1.0
    difference = rewards[lessons.better] - rewards[lessons.worse]
    weights = lessons.weight.numpy()
    losses = [np.average(np.logaddexp(0, -difference / t), weights=weights) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def isotonic_knots(rewards: np.ndarray, lessons: Lessons) -> list[tuple[float, float]]:
    """Points (reward, mean rating 0-1) that rise monotonically; empty with too few ratings."""
    from sklearn.isotonic import IsotonicRegression

    if len(lessons.row) < LEAST_FOR_ISOTONIC:
        return []
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(rewards[lessons.row], lessons.level.numpy(), lessons.row_weight.numpy())
    return [
        (float(x), float(y)) for x, y in zip(model.X_thresholds_, model.y_thresholds_, strict=True)
    ]


@dataclass(frozen=True)
class CrossFit:
    """(n,) rewards of every candidate by a head that never saw its prompt, in log-odds."""

    rewards: np.ndarray
    temperatures: list[float]


def cross_fit(
    features: Features,
    lessons: Lessons,
    prompts: np.ndarray,
    folds: np.ndarray,
    settings: SelectorSettings,
    progress: Callable[[], None] = lambda: None,
) -> CrossFit:
    """Score every fold by a head trained on the others, each divided by its own temperature."""
    rewards, temperatures = np.zeros(len(features)), []
    for fold in range(settings.folds):
        test, validation = folds == fold, folds == (fold + 1) % settings.folds
        head = fit(
            features,
            lessons,
            ~test & ~validation,
            validation,
            prompts,
            settings,
            settings.seed + fold,
        )
        every = rewards_of(head, features)
        temperature = temperature_of(every, lessons.within(validation))
        rewards[test] = every[test] / temperature
        temperatures.append(temperature)
        progress()
    return CrossFit(rewards, temperatures)

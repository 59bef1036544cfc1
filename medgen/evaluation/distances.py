"""Distances between sets of features, each by the library that the field trusts for it.

FID, KID and Inception Score by torchmetrics, precision, recall, density and coverage by prdc, all
from features that are given; here is only how the libraries are called. Knows arrays; knows no
images, tables or modalities.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import prdc
import torch
import yaml
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

NEIGHBOURHOOD = ("precision", "recall", "density", "coverage")


class _Given(nn.Module):
    """The feature network of a metric that is fed features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


@lru_cache
def settings() -> dict:
    """The contents of `fidelity.yaml`."""
    path = Path(__file__).with_name("fidelity.yaml")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def frechet_distance(real: np.ndarray, other: np.ndarray) -> float:
    """FID between features (n, d) and (m, d), by torchmetrics in double precision.

    Source: Heusel et al. 2017. Where there are fewer images than features, their span is measured
    instead: the distance is the same in any rotated frame, and far quicker.
    """
    if len(real) + len(other) < real.shape[1]:
        both = np.concatenate([real, other]).astype(np.float64)
        frame = np.asarray(np.linalg.qr((both - both.mean(0)).T, mode="r")).T
        real, other = frame[: len(real)], frame[len(real) :]
    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(_double(real), real=True)
    metric.update(_double(other), real=False)
    return float(metric.compute())


def kernel_distance(real: np.ndarray, other: np.ndarray, seed: int = 0) -> float:
    """Unbiased KID between features (n, d) and (m, d), by torchmetrics in double precision.

    Whole samples of equal size are compared at once; of unequal or large ones, random blocks are.
    Source: Binkowski et al. 2018, cubic kernel.
    """
    kernel, blocks = settings()["kernel"], settings()["kernel_blocks"]
    size = min(len(real), len(other))
    whole = size <= blocks["above"]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]),
            subsets=1 if whole and len(real) == len(other) else blocks["count"],
            subset_size=size if whole else blocks["size"],
            degree=kernel["degree"],
            coef=kernel["coefficient"],
        )
        metric.update(_double(real), real=True)
        metric.update(_double(other), real=False)
        return float(metric.compute()[0])


def inception_score(logits: np.ndarray) -> float:
    """exp E KL(p(class | image) || p(class)) of class logits (n, classes), in one split.

    Source: Salimans et al. 2016, by torchmetrics in double precision.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=1)
        metric.update(_double(logits))
        return float(metric.compute()[0])


def neighbourhood_scores(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage of features, by prdc.

    Source: Kynkäänniemi et al. 2019 and Naeem et al. 2020.
    """
    # prdc prints its counts, and scikit-learn warns of the threads it is asked for.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = prdc.compute_prdc(real, other, nearest_k=settings()["neighbours"])
    return {name: float(scores[name]) for name in NEIGHBOURHOOD}


def _double(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))

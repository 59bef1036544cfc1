"""The yardstick of utility: a small convolutional classifier, trained for a fixed number of steps.

The same network, steps, batch and augmentation for every arm, so that only the images differ. No
flips: sides matter. Knows pixels and class numbers; knows no table and no arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64, 64, 128)
STRIDES = (2, 2, 2, 1, 2)


@dataclass(frozen=True)
class Budget:
    """What a training may cost: optimiser steps of `batch` images, `size` pixels a side.

    `seeds` is how often each arm is trained: other weights, other choice of images.
    """

    steps: int
    batch: int
    size: int
    seeds: int
    learning_rate: float

    @property
    def name(self) -> str:
        """The classifier as named beside its figures."""
        return f"small CNN, {self.size} px, {self.steps} steps of {self.batch}, {self.seeds} seeds"


class SmallCnn(nn.Module):
    """Five 3x3 convolutions with group normalisation (Wu and He 2018), mean over the grid, linear.

    135 thousand weights.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in zip(WIDTHS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(channels, width, 3, stride, 1, bias=False),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, classes))

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, S, S) in [-1, 1] -> logits (batch, classes)."""
        return self.head(self.body(pixels).mean(dim=(2, 3)))


def train(
    images: np.ndarray, labels: np.ndarray, classes: int, budget: Budget, seed: int
) -> SmallCnn:
    """Train a classifier; the caller's random state is left as it was.

    Args:
        images: (n, S, S, 3) uint8.
        labels: (n,) class numbers, 0 to classes - 1.
        classes: Number of classes.
        budget: Steps, batch and learning rate (AdamW, one cosine cycle with warm-up).
        seed: Of weights, order, augmentation and dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallCnn(classes).to(memory_format=torch.channels_last)
        pixels, targets = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
        optimizer = torch.optim.AdamW(model.parameters(), budget.learning_rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, budget.learning_rate, total_steps=budget.steps, pct_start=0.15
        )
        order = torch.empty(0, dtype=torch.long)
        for _ in range(budget.steps):
            while len(order) < budget.batch:
                order = torch.cat([order, torch.randperm(len(images))])
            chosen, order = order[: budget.batch], order[budget.batch :]
            loss = F.cross_entropy(model(_augmented(pixels[chosen])), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def probabilities(model: SmallCnn, images: np.ndarray, batch: int = 128) -> np.ndarray:
    """(n, classes) float64 class probabilities of (n, S, S, 3) uint8 images."""
    parts = [
        model(_scaled(torch.from_numpy(images[start : start + batch]))).double().softmax(dim=1)
        for start in range(0, len(images), batch)
    ]
    return torch.cat(parts).numpy()


def _scaled(pixels: Tensor) -> Tensor:
    """(n, S, S, 3) uint8 -> (n, 3, S, S) float32 in [-1, 1]; channels lie last in memory."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def _augmented(pixels: Tensor) -> Tensor:
    """Turned by up to 6 degrees, scaled by 8 %, moved by 6 %, light and contrast by 15 %."""
    n = len(pixels)
    angle = (torch.rand(n) * 2 - 1) * math.radians(6)
    scale = 1 + (torch.rand(n) * 2 - 1) * 0.08
    shift = (torch.rand(n, 2) * 2 - 1) * 0.12
    turn = torch.zeros(n, 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = scale * angle.cos()
    turn[:, 0, 1] = -scale * angle.sin()
    turn[:, 1, 0] = scale * angle.sin()
    turn[:, :, 2] = shift
    images = _scaled(pixels)
    grid = F.affine_grid(turn, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain = 1 + (torch.rand(n, 1, 1, 1) * 2 - 1) * 0.15
    light = (torch.rand(n, 1, 1, 1) * 2 - 1) * 0.15
    return (images * gain + light).contiguous(memory_format=torch.channels_last)

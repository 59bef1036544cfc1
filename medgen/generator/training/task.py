"""What the training loop asks of whatever it trains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn


class Batch(Protocol):
    """Some pictures with their conditions, noise and targets."""

    def part(self, index: int, count: int) -> Self:
        """The `index`-th of `count` equal parts."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...

    @property
    def size(self) -> int:
        """Pictures in it."""
        ...


class Task(Protocol):
    """A model, its batches and its result."""

    @property
    def model(self) -> nn.Module:
        """What is trained: its parameters that have gradients."""
        ...

    @property
    def average(self) -> nn.Module | None:
        """Holds the running average of those; null for none."""
        ...

    def batch(self, step: int) -> Any:
        """The whole `Batch` of a step, a function of the seed and the step alone."""
        ...

    def held_out(self) -> Iterator[Any]:
        """The validation fold as `Batch`es, always under the same noise and captions."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch; `model` may be wrapped for several processes."""
        ...

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint keeps of the model or its average."""
        ...

    def load(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """Put `weights` back.

        Raises:
            RuntimeError: They do not fit.
        """
        ...

    def architecture(self) -> dict[str, Any]:
        """What another run must share to go on from this one's checkpoints, as plain values."""
        ...

    def write(self, folder: Path) -> None:
        """Write what a backend loads: whole, or what was there is kept."""
        ...

    def draw(self, folder: Path, path: Path) -> None:
        """Draw the configured grid of samples into a PNG, with the weights written to `folder`."""
        ...

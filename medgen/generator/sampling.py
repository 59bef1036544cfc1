"""How the reverse process is walked: the sampler, guidance over its steps, and what is held fixed.

Guidance may grow over the steps (Wang et al. 2024, arXiv 2404.13040), act in an interval of noise
only (Kynkaanniemi et al. 2024, arXiv 2404.07724) and be bounded (dynamic thresholding, after
Saharia et al. 2022, arXiv 2205.11487). Knows tensors; nothing of text or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor
from torch.nn import functional as F

Sampler = Literal["dpmsolver++", "ddim", "unipc"]
Schedule = Literal["constant", "linear", "cosine"]

DEFAULT_STRENGTH = 0.6
"""Share of the noise that an init image gets when no strength is given."""

FEATHER = 9
"""Pixels over which a repainted region fades into what is kept, inside the region."""


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        sampler: DPM-Solver++ (Lu et al. 2022), DDIM (Song et al. 2020) or UniPC (Zhao et al. 2023).
        schedule: How guidance goes over the steps: constant, or growing from none to twice the
            scale's effect, with the same mean.
        interval: Guidance acts where the time, 0 (clean) to 1 (noise), lies inside; outside the
            conditional prediction alone is computed.
        threshold: Percentile (0.5 to 1) of the clean prediction's size that guidance may not
            raise; null is off.
    """

    sampler: Sampler = "dpmsolver++"
    schedule: Schedule = "constant"
    interval: tuple[float, float] = (0.0, 1.0)
    threshold: float | None = None

    def scheduler(self, config: Mapping[str, Any]) -> Any:
        """The sampler of a saved scheduler's configuration."""
        if self.sampler == "ddim":
            return DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=True)
        kind = UniPCMultistepScheduler if self.sampler == "unipc" else DPMSolverMultistepScheduler
        return kind.from_config(config)

    def scale(self, scales: Tensor, done: float) -> Tensor:
        """Guidance scales after a share `done` (0 to 1) of the steps."""
        if self.schedule == "constant":
            return scales
        shape = 2 * done if self.schedule == "linear" else 1 - math.cos(math.pi * done)
        return 1 + (scales - 1) * shape

    def active(self, time: float) -> bool:
        """Whether guidance acts at a time from 0 (clean) to 1 (noise)."""
        return self.interval[0] <= time <= self.interval[1]


class Levels:
    """Predictions as clean latents and back, for one noise level of a scheduler."""

    def __init__(self, alpha: Tensor, prediction: str) -> None:
        self.signal, self.noise = alpha.sqrt(), (1 - alpha).sqrt()
        self.prediction = prediction

    def clean(self, predicted: Tensor, noisy: Tensor) -> Tensor:
        """The clean latents that a prediction on `noisy` implies."""
        if self.prediction == "sample":
            return predicted
        if self.prediction == "epsilon":
            return (noisy - self.noise * predicted) / self.signal
        return self.signal * noisy - self.noise * predicted

    def predicted(self, clean: Tensor, noisy: Tensor) -> Tensor:
        """The prediction on `noisy` that implies clean latents."""
        if self.prediction == "sample":
            return clean
        if self.prediction == "epsilon":
            return (noisy - self.signal * clean) / self.noise
        return (self.signal * noisy - clean) / self.noise


def bounded(guided: Tensor, given: Tensor, percentile: float) -> Tensor:
    """Clean latents whose size guidance may not raise.

    The percentile of |guided| is brought down to that of the unguided |given|, each picture by its
    own; what lies over it is cut.

    Args:
        guided: (batch, channels, h, w).
        given: The conditional prediction without guidance, in the same shape.
        percentile: 0 to 1.
    """

    def size(x: Tensor) -> Tensor:
        return x.abs().flatten(1).quantile(percentile, dim=1).view(-1, 1, 1, 1)

    limit, reached = size(given), size(guided)
    cut = torch.maximum(torch.minimum(guided, reached), -reached)
    return torch.where(reached > limit, cut * (limit / reached.clamp_min(1e-8)), guided)


def latent_mask(mask: Tensor, side: int) -> Tensor:
    """Where latents are free: (batch, 1, side, side), 1 where any masked pixel lies.

    Args:
        mask: (batch, 1, H, W), 1 where the picture shall be drawn anew.
    """
    return F.adaptive_max_pool2d(mask, side)


def blend(drawn: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """Drawn pixels inside a mask, kept ones outside, fading inside its edge.

    Args:
        drawn: (batch, 3, H, W).
        kept: In the same shape.
        mask: (batch, 1, H, W), 1 inside.
    """
    soft = F.avg_pool2d(mask, FEATHER, 1, FEATHER // 2, count_include_pad=False) * mask
    return torch.where(mask > 0, kept + soft * (drawn - kept), kept)

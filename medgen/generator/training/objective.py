"""The training objective: noise in, a target and a weight out, for every prediction and schedule.

Epsilon (Ho et al. 2020, arXiv 2006.11239), x0, v (Salimans and Ho 2022, arXiv 2202.00512);
weights of min-SNR (Hang et al. 2023, arXiv 2303.09556). Knows no network.
"""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from medgen.generator.training.config import ObjectiveConfig

STEPS = 1000
BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}
"""First and last beta: Ho et al. 2020, and Stable Diffusion's (Rombach et al. 2022, arXiv
2112.10752). The cosine schedule has its own."""


def betas(schedule: str) -> dict[str, float]:
    """What a scheduler of diffusers is told of a schedule's ends."""
    return dict(zip(("beta_start", "beta_end"), BETAS.get(schedule, ()), strict=False))


class Objective:
    """Noisy latents, targets and weights of an `ObjectiveConfig`.

    Args:
        config: Prediction, schedule and weighting.
        scheduler: Noise levels other than those of the configuration's schedule.
    """

    def __init__(self, config: ObjectiveConfig, scheduler: DDPMScheduler | None = None) -> None:
        self.config = config
        self.scheduler = scheduler or DDPMScheduler(
            num_train_timesteps=STEPS,
            beta_schedule=config.schedule,
            prediction_type=config.prediction,
            **betas(config.schedule),
        )

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Clean latents (batch, ...) under the noise of their times (batch,) in [0, 1000)."""
        return self.scheduler.add_noise(clean, noise, times)

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network shall predict, in the shape of `clean`."""
        if self.config.prediction == "epsilon":
            return noise
        if self.config.prediction == "sample":
            return clean
        return self.scheduler.get_velocity(clean, noise, times)

    def weights(self, times: Tensor) -> Tensor:
        """Weight of each squared error, (batch,).

        A squared error of v is SNR + 1 times, one of epsilon SNR times, that of x0; the weightings
        are defined on x0.
        """
        if self.config.weighting == "none":
            return torch.ones(len(times))
        alpha = self.scheduler.alphas_cumprod[times]
        ratio = alpha / (1 - alpha)
        capped = self.config.weighting == "capped"
        weight = ((ratio + 1) if capped else ratio).clamp(max=self.config.snr_limit)
        return (
            weight
            / {"sample": 1.0, "epsilon": ratio, "v_prediction": ratio + 1}[self.config.prediction]
        )

    def sampler(self) -> DPMSolverMultistepScheduler:
        """The sampler that fits: DPM-Solver++ on the same schedule and prediction."""
        cosine = self.config.schedule == "squaredcos_cap_v2"
        # The cosine schedule ends in pure noise, whose log-SNR has no bound.
        clipped = {"lambda_min_clipped": -5.1} if cosine else {}
        return DPMSolverMultistepScheduler(
            num_train_timesteps=STEPS,
            beta_schedule=self.config.schedule,
            prediction_type=self.config.prediction,
            timestep_spacing="trailing",
            **betas(self.config.schedule),
            **clipped,
        )

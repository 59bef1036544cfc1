"""What moves a diffusion model towards what was preferred: advantages, weights, losses.

Reward-weighted denoising (advantage-weighted regression, Peng et al. 2019, arXiv 1910.00177, and
Lee et al. 2023, arXiv 2302.12192) and Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908). An
advantage keeps its sign, and an image that is not better than its prompt's others is never driven
up. Pure tensors; knows no network, image or log.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SPREAD = 1e-6  # rewards nearer to each other than this are equal


def advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """How much better each image is than its prompt's mean, in deviations of that prompt.

    Args:
        rewards: (n,) float.
        groups: (n,) int64, the prompt of each image.

    Returns:
        (n,), mean 0 and deviation 1 within each prompt; 0 where all of a prompt's are equal.
    """
    _, group = torch.unique(groups, return_inverse=True)
    count = torch.bincount(group).to(rewards.dtype)
    mean = _sums(rewards, group) / count
    centred = rewards - mean[group]
    deviation = (_sums(centred.square(), group) / count).sqrt()
    spread = deviation[group]
    return torch.where(
        spread > SPREAD, centred / spread.clamp_min(SPREAD), torch.zeros_like(spread)
    )


def preference_weights(
    advantage: Tensor, groups: Tensor, temperature: float, limit: float, repulsion: float = 0.0
) -> Tensor:
    """Signed weights of denoising errors: exp(advantage / temperature) less its prompt's mean.

    The mean is the baseline of a policy gradient. What is better than it is drawn towards, what is
    worse is left alone or, with `repulsion`, pushed away from; the worst of a prompt is never
    drawn towards, and a prompt whose images are all equal teaches nothing.

    Args:
        advantage: (n,) from `advantages`.
        groups: (n,) int64.
        temperature: Above 0; the lower, the more the best count.
        limit: Largest size of an exponential weight, at least 1.
        repulsion: 0 to 1, the share of a negative weight that acts.

    Returns:
        (n,), scaled so that the positive ones have mean 1.
    """
    exponential = (advantage / temperature).exp().clamp(max=limit)
    _, group = torch.unique(groups, return_inverse=True)
    count = torch.bincount(group).to(advantage.dtype)
    signed = exponential - (_sums(exponential, group) / count)[group]
    # What is under the mean reward stays under the baseline, which clipping may have lowered.
    signed = torch.where(advantage <= 0, signed.clamp(max=0.0), signed)
    signed = torch.where(signed.abs() > SPREAD, signed, torch.zeros_like(signed))
    positive = signed > 0
    if not positive.any():
        return torch.zeros_like(signed)
    signed = signed / signed[positive].mean()
    return torch.where(positive, signed, repulsion * signed)


def reward_weighted_loss(
    errors: Tensor, weights: Tensor, reference: Tensor | None = None, margin: float = 0.1
) -> Tensor:
    """Mean of signed weights times denoising errors, (n,) each.

    Pushing away is bounded: an error that exceeds that of the reference by `margin` (a share) has
    no gradient any more.

    Args:
        errors: Squared errors of the model.
        weights: Signed, from `preference_weights`.
        reference: Errors of the reference under the same noise; needed for negative weights.
        margin: How much worse than the reference a rejected image may be drawn.

    Raises:
        ValueError: Negative weights without a reference.
    """
    if reference is None:
        if bool((weights < 0).any()):
            raise ValueError("negative weights need the reference's errors")
        return (weights * errors).mean()
    bounded = torch.minimum(errors, reference * (1 + margin))
    return torch.where(weights < 0, weights * bounded, weights * errors).mean()


def implicit_margins(
    winner: Tensor, loser: Tensor, reference_winner: Tensor, reference_loser: Tensor
) -> Tensor:
    """How much more than the reference the model prefers each winner, (n,): 0 where it is alike.

    Args:
        winner: Squared errors of the model on preferred images, (n,).
        loser: On the others, under the same timesteps and noise.
        reference_winner: Those of the reference (the adapter off).
        reference_loser: Likewise.
    """
    return (reference_winner - winner) - (reference_loser - loser)


def displacement(winner: Tensor, reference_winner: Tensor) -> Tensor:
    """How much worse than the reference the model draws each winner, (n,), 0 where it does not.

    A margin can grow while winner and loser both get worse; taking a multiple of this from it is
    DPO-Positive (Pal et al. 2024, arXiv 2402.13228).
    """
    return (winner - reference_winner).clamp(min=0)


def dpo_loss(margins: Tensor, beta: float) -> Tensor:
    """Diffusion-DPO's loss of `implicit_margins`: ln 2 while the model is its reference.

    Args:
        margins: (n,), of errors that are means over a latent's elements.
        beta: How far the model may leave the reference; 500 to 5000 in Wallace et al. 2023.
    """
    return -F.logsigmoid(0.5 * beta * margins).mean()


def _sums(values: Tensor, group: Tensor) -> Tensor:
    return torch.zeros(int(group.max()) + 1, dtype=values.dtype).index_add(0, group, values)

"""Predictions, schedules and weights."""

import pytest
import torch

from medgen.generator.training.config import ObjectiveConfig
from medgen.generator.training.objective import Objective

TIMES = torch.tensor([0, 10, 300, 700, 990])
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def _objective(prediction="v_prediction", schedule="squaredcos_cap_v2", weighting="none"):
    return Objective(ObjectiveConfig(prediction=prediction, schedule=schedule, weighting=weighting))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_sampler_undoes_the_noise_when_the_prediction_is_perfect(prediction, schedule):
    objective = _objective(prediction, schedule)
    torch.manual_seed(0)
    clean = torch.randn(2, 3, 4, 4)
    sampler = objective.sampler()
    sampler.set_timesteps(20)
    noise = torch.randn_like(clean)
    x = objective.noisy(clean, noise, sampler.timesteps[:1].repeat(2))
    for time in sampler.timesteps:
        times = time.repeat(2)
        alpha = objective.scheduler.alphas_cumprod[time]
        left = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        x = sampler.step(objective.target(clean, left, times), time, x).prev_sample
    assert torch.allclose(x, clean, atol=0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_weighting_means_the_same_for_every_prediction(schedule):
    """A given error of x0 costs the same, whatever is predicted."""
    alpha = _objective(schedule=schedule).scheduler.alphas_cumprod[TIMES]
    ratio = alpha / (1 - alpha)
    cost = {
        prediction: _objective(prediction, schedule, "min_snr").weights(TIMES) * factor
        for prediction, factor in (("sample", 1), ("epsilon", ratio), ("v_prediction", ratio + 1))
    }
    assert torch.allclose(cost["sample"], ratio.clamp(max=5.0))
    for values in cost.values():
        assert torch.allclose(values, cost["sample"], rtol=1e-4)


def test_the_cap_leaves_the_noisiest_steps_their_weight_and_min_snr_does_not():
    capped, usual = (
        _objective(weighting=weighting).weights(TIMES) for weighting in ("capped", "min_snr")
    )
    assert capped[-1] == pytest.approx(1.0)
    assert usual[-1] < 0.01
    assert capped[0] < 0.01
    assert torch.equal(_objective().weights(TIMES), torch.ones(len(TIMES)))


def test_scaled_linear_is_that_of_stable_diffusion():
    """MINIM fine-tunes Stable Diffusion 1.4, whose last step keeps 0.068 of the signal."""
    objective = _objective("epsilon", "scaled_linear")
    for one in (objective.scheduler, objective.sampler()):
        assert float(one.alphas_cumprod[-1].sqrt()) == pytest.approx(0.068265, abs=1e-5)

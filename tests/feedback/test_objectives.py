"""The objectives on small problems with known answers; MINIM's errors by name."""

import math

import pytest
import torch

from medgen.feedback.objectives import (
    advantages,
    displacement,
    dpo_loss,
    implicit_margins,
    preference_weights,
    reward_weighted_loss,
)

GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])
REWARDS = torch.tensor([0.0, 0.5, 1.0, 0.2, 0.3, 0.9])


def weights_of(rewards=REWARDS, groups=GROUPS, **options):
    chosen = {"temperature": 1.0, "limit": 5.0, **options}
    return preference_weights(advantages(rewards, groups), groups, **chosen)


def test_an_advantage_keeps_its_sign():
    found = advantages(REWARDS, GROUPS)
    assert found[0] < 0 < found[2]
    assert found[3] < found[4] < 0 < found[5]
    for group in (0, 1):
        own = found[group == GROUPS]
        assert own.mean().abs() < 1e-6
        assert own.std(unbiased=False) == pytest.approx(1, abs=1e-5)


def test_prompts_are_compared_within_themselves():
    shifted = REWARDS + 7 * GROUPS
    assert torch.allclose(advantages(shifted, GROUPS), advantages(REWARDS, GROUPS), atol=1e-4)


def test_equal_ratings_teach_nothing():
    assert not weights_of(torch.full((6,), 0.4)).any()
    assert not advantages(torch.tensor([0.1]), torch.tensor([3])).any()


def test_the_worst_is_never_drawn_towards_and_the_best_most():
    for seed in range(50):
        random_ = torch.Generator().manual_seed(seed)
        rewards = torch.randint(1, 6, (24,), generator=random_).float()
        groups = torch.randint(0, 6, (24,), generator=random_)
        found = weights_of(rewards, groups, temperature=0.3, repulsion=float(seed % 2))
        for group in groups.unique():
            own, mine = found[groups == group], rewards[groups == group]
            assert (own[mine == mine.min()] <= 0).all()
            assert (own[mine < mine.mean()] <= 0).all()
            assert own.max() == own[mine == mine.max()].min()


def test_weights_are_not_all_one_and_are_clipped():
    found = weights_of()
    positive = found[found > 0]
    assert positive.mean() == pytest.approx(1)
    assert len(positive.unique()) > 1
    steep = weights_of(temperature=0.01)
    assert steep.isfinite().all()


def test_a_categorical_model_draws_the_better_more_and_the_worse_less():
    """Errors as negative log-likelihoods: the loss is then a policy's, with a known answer."""
    logits = torch.zeros(2, 3, requires_grad=True)
    found = weights_of().view(2, 3)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    for _ in range(20):
        loss = reward_weighted_loss(-logits.log_softmax(1).flatten(), found.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = logits.softmax(1)
    assert (after[:, 2] > 1 / 3).all()
    assert (after[:, 0] < 1 / 3).all()
    assert after[1, 1] < 1 / 3


def denoiser():
    """A linear noise predictor on two numbers, and two images of one prompt."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(0.7 * torch.eye(2))
        model.bias.zero_()
    return model, torch.tensor([[2.0, 0.0], [-2.0, 0.0]])


def denoising_errors(model, images, noise):
    noisy = 0.7 * images + 0.71 * noise
    return (model(noisy) - noise).square().mean(1)


@pytest.mark.parametrize("repulsion", [0.0, 1.0])
def test_a_denoiser_fits_the_better_image_and_not_the_worse(repulsion):
    model, images = denoiser()
    before_model, _ = denoiser()
    groups = torch.tensor([0, 0])
    found = weights_of(torch.tensor([1.0, 0.0]), groups, repulsion=repulsion)
    assert found[0] == 1
    assert found[1] == (-1 if repulsion else 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(100):
        noise = torch.randn(1, 2, generator=torch.Generator().manual_seed(step)).expand(2, 2)
        with torch.no_grad():
            reference = denoising_errors(before_model, images, noise)
        loss = reward_weighted_loss(denoising_errors(model, images, noise), found, reference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noise = torch.randn(500, 1, 2, generator=torch.Generator().manual_seed(999))
    before, after = (
        torch.stack([denoising_errors(m, images, n.expand(2, 2)) for n in noise]).mean(0)
        for m in (before_model, model)
    )
    assert after[0] < 0.8 * before[0]
    assert after[1] > before[1]


def test_pushing_away_is_bounded():
    errors = torch.tensor([1.0, 1.2], requires_grad=True)
    reward_weighted_loss(errors, torch.tensor([-1.0, -1.0]), torch.ones(2), margin=0.1).backward()
    assert errors.grad.tolist() == [-0.5, 0.0]
    with pytest.raises(ValueError, match="reference"):
        reward_weighted_loss(errors, torch.tensor([-1.0, 1.0]))


def test_dpo_starts_at_ln_2_and_falls_and_prefers_the_winner():
    model, images = denoiser()
    reference, _ = denoiser()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for step in range(60):
        # Winner and loser under the same noise.
        noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(step))
        errors = [denoising_errors(model, image, noise) for image in images]
        with torch.no_grad():
            known = [denoising_errors(reference, image, noise) for image in images]
        margins = implicit_margins(errors[0], errors[1], known[0], known[1])
        loss = dpo_loss(margins, beta=500.0)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < 0.1 * losses[0]
    assert float(margins.detach().mean()) > 0


def test_dpo_of_a_reversed_pair_is_larger():
    margins = torch.tensor([0.002])
    assert dpo_loss(margins, 2000.0) < math.log(2) < dpo_loss(-margins, 2000.0)
    steeper = dpo_loss(margins, 5000.0)
    assert steeper < dpo_loss(margins, 500.0)


def test_a_winner_drawn_worse_than_before_counts_against_its_pair():
    """A margin alone may grow while both get worse."""
    winner, loser = torch.tensor([0.32, 0.29]), torch.tensor([0.40, 0.30])
    known = torch.tensor([0.30, 0.30])
    margins = implicit_margins(winner, loser, known, known)
    worse = displacement(winner, known)
    assert (margins > 0).all()
    assert worse.tolist() == pytest.approx([0.02, 0.0])
    assert float((margins - 5 * worse)[0]) < 0
    assert float((margins - 5 * worse)[1]) == pytest.approx(float(margins[1]))

"""Sharpening: more blocks change nothing, latents stay, sharpness rises, a killed run goes on."""

import csv

import numpy as np
import pytest
import torch

from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.sharpness import (
    PatchDiscriminator,
    ReaderFeatures,
    grid_distance,
    hinge_loss,
    texture_distance,
)
from medgen.generator.train_decoder import Sharpening, read_pictures, train, widened
from medgen.measure.reader import Reader


@pytest.fixture
def config(tmp_path):
    torch.manual_seed(0)
    model = CompactAutoencoder((16, 16, 16), (0, 0, 0), (1, 1, 1))
    model.save_pretrained(tmp_path / "autoencoder")
    images = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    with (tmp_path / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "modal", "split", "group"])
        for index in range(8):
            modal = "Fundus" if index % 2 else "OCT"
            writer.writerow([index, modal, "test" if index == 7 else "train", f"g{index}"])
    return {
        "table": str(tmp_path / "table.csv"),
        "images": str(tmp_path / "images.npy"),
        "init_from": str(tmp_path / "autoencoder"),
        "out": str(tmp_path / "out"),
        "seed": 0,
        "steps": 4,
        "batch": 2,
        "save_every": 2,
        "lr": 1e-3,
        "noise": 0.2,
        "ema": 0.5,
        "decoder_blocks": [2, 3, 1],
        "features": 0.5,
        "matching": 0.3,
        "texture": 0.1,
        "grid": 5.0,
        "critic_rate": 1.0,
        "adversarial": 0.5,
        "adversarial_from": 1,
        "crop": 32,
        "crop_batch": 3,
        "detail_channels": 0,
    }


def test_more_blocks_change_nothing_at_first(config):
    before = CompactAutoencoder.from_pretrained(config["init_from"])
    after = widened(config["init_from"], config["decoder_blocks"], 0)
    latents = torch.randn(2, 16, 4, 4)
    assert len(after.decoder) == len(before.decoder) + 3
    assert torch.equal(before.decode(latents), after.decode(latents))
    noise = torch.randn(2, 1, 64, 64)
    assert torch.equal(before.decode(latents), after.decode(latents, noise))


def test_detail_changes_nothing_at_first_and_is_trained_along(config, tmp_path):
    before = CompactAutoencoder.from_pretrained(config["init_from"])
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    after = widened(config["init_from"], config["decoder_blocks"], 5)
    latents = after.encode(images)
    assert latents.shape == (2, 21, 4, 4)
    assert torch.equal(latents[:, :16], before.encode(images))
    assert torch.allclose(after.decode(latents), before.decode(latents[:, :16]), atol=1e-5)
    started = widened(config["init_from"], config["decoder_blocks"], 5).detail_encoder.state_dict()
    train({**config, "detail_channels": 5})
    trained = CompactAutoencoder.from_pretrained(tmp_path / "out" / "autoencoder")
    assert torch.equal(trained.encode(images)[:, :16], latents[:, :16])
    ended = trained.detail_encoder.state_dict()
    assert not all(torch.equal(value, ended[name]) for name, value in started.items())


def test_training_moves_the_decoder_only_and_keeps_test_rows_out(config, tmp_path):
    pictures = read_pictures(tmp_path / "table.csv", tmp_path / "images.npy")
    assert 7 not in {*pictures.training, *pictures.held_out}
    before = widened(config["init_from"], config["decoder_blocks"], 0)
    train(config)
    after = CompactAutoencoder.from_pretrained(tmp_path / "out" / "autoencoder")
    same = {
        name: torch.equal(value, after.state_dict()[name])
        for name, value in before.state_dict().items()
    }
    assert all(kept for name, kept in same.items() if name.startswith("encoder"))
    assert not all(kept for name, kept in same.items() if name.startswith("decoder"))


def test_a_killed_run_ends_like_an_unbroken_one(config, tmp_path, monkeypatch):
    train({**config, "out": str(tmp_path / "unbroken")})
    step, taken = Sharpening.step, []

    def killed(self, *arguments):
        taken.append(arguments)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Sharpening, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    train(config)
    ends = [
        CompactAutoencoder.from_pretrained(tmp_path / name / "autoencoder").state_dict()
        for name in ("unbroken", "out")
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_the_discriminator_learns_to_tell_sharp_from_smooth():
    torch.manual_seed(1)
    critic = PatchDiscriminator(2, width=8)
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3)
    classes = torch.tensor([0, 1, 0, 1])
    for _ in range(30):
        real = torch.rand(4, 3, 32, 32) * 2 - 1
        smooth = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
        loss = hinge_loss(critic(real, classes)[0], critic(smooth, classes)[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real = torch.rand(4, 3, 32, 32) * 2 - 1
    smooth = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
    assert critic(real, classes)[0].mean() > critic(smooth, classes)[0].mean() + 0.5


def test_feature_distance_grows_with_blur_and_is_zero_for_the_same():
    features = ReaderFeatures(Reader.load())
    torch.manual_seed(2)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    blurred = [torch.nn.functional.avg_pool2d(image, size, 1, size // 2) for size in (3, 7)]
    assert features(image, image) < 1e-8
    assert 0 < features(blurred[0], image) < features(blurred[1], image)


def test_texture_distance_sees_blur_but_not_other_grains_of_the_same_texture():
    torch.manual_seed(3)
    grains = [0.2 * torch.randn(1, 3, 64, 64) for _ in range(2)]
    blurred = torch.nn.functional.avg_pool2d(grains[0], 3, 1, 1)
    assert texture_distance(grains[0], grains[0]) == 0
    assert texture_distance(grains[1], grains[0]) < 0.3 * texture_distance(blurred, grains[0])


def test_grid_distance_sees_a_grid_but_hardly_grain_of_the_same_strength():
    torch.manual_seed(4)
    plain = torch.zeros(1, 3, 64, 64)
    grid = plain.clone()
    grid[..., ::4, ::4] = 0.4
    grain = plain + grid.std() * torch.randn(plain.shape)
    assert grid_distance(grain, plain) < 0.3 * grid_distance(grid, plain)

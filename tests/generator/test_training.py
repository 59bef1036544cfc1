"""Training on a handful of drawn images: it learns, and a killed run goes on as if unbroken."""

import copy
import csv
import shutil

import numpy as np
import pytest
import torch

from medgen.data.splits import is_validation
from medgen.generator import train_autoencoder, train_diffusion
from medgen.generator.autoencoder import CompactAutoencoder

COLUMNS = ("path", "text", "modal", "label", "split", "group", "source")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """24 drawn squares of 64x64 in two modalities, as a table and packed pixels."""
    folder = tmp_path_factory.mktemp("table")
    random_ = np.random.default_rng(0)
    images = random_.integers(0, 60, (24, 64, 64, 3), dtype=np.uint8)
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for i in range(24):
            size = 16 + 2 * (i % 8)
            images[i, size:-size, size:-size] = 200
            modal, source = ("OCT", "srf_bern") if i % 2 else ("Brain MRI", "nickparvar_tumor")
            label = "subretinal fluid" if i % 2 else "glioma"
            writer.writerow([f"{i}.png", "", modal, label, "train", f"g{i}", source])
    np.save(folder / "images.npy", images)
    assert 0 < sum(is_validation(f"g{i}") for i in range(24)) < 12
    return folder


def _autoencoder_config(table, out, **values):
    return {
        "table": table / "table.csv", "images": table / "images.npy", "out": out, "seed": 0,
        "steps": 150, "batch": 4, "crop": 32, "lr": 2e-3, "noise": 0.1,
        "model": {"channels": [16, 16, 16]}, **values,
    }  # fmt: skip


def test_the_autoencoder_learns(table, tmp_path):
    torch.manual_seed(0)
    start = CompactAutoencoder(channels=(16, 16, 16))
    train_autoencoder.train(_autoencoder_config(table, tmp_path))
    trained = CompactAutoencoder.from_pretrained(tmp_path / "autoencoder")
    target = train_autoencoder.to_model(np.load(table / "images.npy"))
    with torch.inference_mode():
        before = train_autoencoder.psnr(start(target), target).mean()
        after = train_autoencoder.psnr(trained(target), target).mean()
    assert after > before + 3


@pytest.fixture(scope="module")
def diffusion_config(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    torch.manual_seed(0)
    CompactAutoencoder(channels=(16, 16, 16)).save_pretrained(folder)
    return {
        "table": table / "table.csv", "joined": [], "images": table / "images.npy",
        "autoencoder": folder, "seed": 0, "steps": 6, "batch": 4, "lr": 1e-3, "warmup": 2,
        "decay_from": 0.5, "ema": 0.9, "min_snr": 5.0, "latent_noise": 0.05,
        "augmented_copies": 1, "save_every": 2,
        "dropout": {"all": 0.1, "text": 0.1, "modality": 0.1, "structured": 0.2,
                    "structured_each": 0.1},
        "text_encoder": {"vocabulary_size": 300, "length": 16, "width": 32, "layers": 1,
                         "heads": 2},
        "conditions": {"structured_tokens": 1, "pooled_width": 32},
        "unet": {"channels": [16, 16, 32], "groups": 8, "heads": 2, "pooled_width": 32,
                 "sample_size": 4},
    }  # fmt: skip


def _train(config, out):
    train_diffusion.train({**copy.deepcopy(config), "out": out})
    return torch.load(out / "last.pt", weights_only=True)


def test_a_killed_run_goes_on_exactly(diffusion_config, tmp_path, monkeypatch):
    unbroken = _train(diffusion_config, tmp_path / "unbroken")
    calls = 0
    step = torch.optim.AdamW.step

    def dying(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", dying)
    (tmp_path / "broken").mkdir()
    shutil.copy(tmp_path / "unbroken" / "tokenizer.json", tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        _train(diffusion_config, tmp_path / "broken")
    resumed = _train(diffusion_config, tmp_path / "broken")
    assert resumed["step"] == unbroken["step"] == 6
    for name, value in unbroken["average"].items():
        assert torch.equal(value, resumed["average"][name]), name


def test_rare_modalities_and_classes_are_drawn_more_often_than_their_share():
    rows = [{"modal": "A", "source": "s", "label": "x"}] * 90
    rows += [{"modal": "A", "source": "s", "label": "y"}] * 6
    rows += [{"modal": "B", "source": "s", "label": "z"}] * 4
    weights = train_diffusion.sampling_weights(rows)
    assert weights.sum() == pytest.approx(1)
    shares = weights[:90].sum(), weights[90:96].sum(), weights[96:].sum()
    assert shares[2] == pytest.approx(2 / (2 + 96**0.5))
    assert shares[1] / shares[0] == pytest.approx((6 / 90) ** 0.5)

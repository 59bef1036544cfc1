"""Drawn pictures as a table, and a configuration that trains on them in seconds."""

import csv

import numpy as np
import pytest
import torch

from medgen.data.splits import is_validation
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.training.config import TrainingConfig

COLUMNS = ("path", "text", "modal", "label", "split", "group", "source")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def settings_of_training(table, tmp_path_factory):
    """Entries of a small run; latents and tokenizer are shared by all runs."""
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(0)
    CompactAutoencoder(channels=(16, 16, 16)).save_pretrained(folder / "autoencoder")
    return {
        "table": table / "table.csv", "images": table / "images.npy",
        "autoencoder": folder / "autoencoder", "cache": folder,
        "tokenizer": folder / "tokenizer.json", "steps": 6, "batch": 4, "lr": 1e-3, "warmup": 2,
        "decay_from": 0.5, "ema": 0.9, "save_every": 2, "log_every": 1,
        "dropout": {"all": 0.1, "text": 0.1, "modality": 0.1, "structured": 0.2,
                    "structured_each": 0.1},
        "text_encoder": {"vocabulary_size": 300, "length": 16, "width": 32, "layers": 1,
                         "heads": 2},
        "conditions": {"structured_tokens": 1, "pooled_width": 32},
        "unet": {"channels": [16, 16, 32], "groups": 8, "heads": 2},
    }  # fmt: skip


@pytest.fixture
def configure(settings_of_training, tmp_path):
    """A function from an output's name and changed entries to a configuration."""

    def make(name="run", **changes):
        return TrainingConfig(**{**settings_of_training, "out": tmp_path / name, **changes})

    return make

"""Training of the compact autoencoder on square crops, resumable.

Run as `python -m medgen.generator.train_autoencoder configs/autoencoder.yaml`. Loss: L1, L1 of
image gradients and L1 of 4x-pooled images, so that outlines and large structure both count.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from medgen.data.splits import is_validation
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.checkpoints import load_checkpoint, save_checkpoint


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + 0.5 x gradient L1 + 4x-pooled L1 of (batch, 3, H, W) images in [-1, 1]."""
    loss = F.l1_loss(output, target)
    for dim in (2, 3):
        loss = loss + 0.5 * F.l1_loss(output.diff(dim=dim), target.diff(dim=dim))
    return loss + F.l1_loss(F.avg_pool2d(output, 4), F.avg_pool2d(target, 4))


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (batch,), for images in [-1, 1]."""
    error = (output.clamp(-1, 1) - target).square().flatten(1).mean(1)
    return 10 * torch.log10(4.0 / error.clamp_min(1e-10))


def to_model(pixels: np.ndarray) -> Tensor:
    """(batch, H, W, 3) uint8 -> (batch, 3, H, W) float in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def random_crops(
    images: np.ndarray, rows: np.ndarray, crop: int, generator: np.random.Generator
) -> np.ndarray:
    """Square crops (n, crop, crop, 3) uint8 of the given rows of images."""
    limit = images.shape[1] - crop + 1
    tops, lefts = generator.integers(0, limit, (2, len(rows)))
    return np.stack(
        [
            images[row, top : top + crop, left : left + crop]
            for row, top, left in zip(rows, tops, lefts, strict=True)
        ]
    )


def train(config: dict[str, Any]) -> None:
    """Train to `config["steps"]`, writing checkpoints and the final model to `config["out"]`."""
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])
    with Path(config["table"]).open(newline="") as stream:
        table = list(csv.DictReader(stream))
    images = np.load(config["images"], mmap_mode="r")
    training = [
        i for i, r in enumerate(table) if r["split"] == "train" and not is_validation(r["group"])
    ]
    validation = [
        i for i, r in enumerate(table) if r["split"] == "train" and is_validation(r["group"])
    ]
    modals = np.array([table[i]["modal"] for i in training])
    _, inverse, counts = np.unique(modals, return_inverse=True, return_counts=True)
    weights = 1.0 / np.sqrt(counts[inverse])
    weights /= weights.sum()

    model = CompactAutoencoder(**config["model"])
    average = CompactAutoencoder(**config["model"])
    average.load_state_dict(model.state_dict())
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=1e-3)
    checkpoint = out / "last.pt"
    step = load_checkpoint(checkpoint, model, average, optimizer)
    started, seen = time.time(), 0
    while step < config["steps"]:
        generator = np.random.default_rng([config["seed"], step])
        torch.manual_seed(hash((config["seed"], step)) % 2**63)  # the noise on latents
        rows = generator.choice(len(training), config["batch"], p=weights)
        pixels = random_crops(images, np.array(training)[rows], config["crop"], generator)
        progress = step / config["steps"]
        rate = config["lr"] * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        target = to_model(pixels)
        loss = reconstruction_loss(model(target, noise=config["noise"]), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        seen += len(rows)
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for a, p in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
        if step % 50 == 0:
            print(
                f"step {step} loss {loss.item():.4f} {seen / (time.time() - started):.1f} crops/s",
                flush=True,
            )
        if step % 500 == 0 or step == config["steps"]:
            save_checkpoint(checkpoint, model, average, optimizer, step)
            average.save_pretrained(out / "autoencoder")
            _report(average, images, table, validation)


@torch.inference_mode()
def _report(
    model: CompactAutoencoder, images: np.ndarray, table: list[dict[str, str]], rows: list[int]
) -> None:
    for modal in sorted({table[i]["modal"] for i in rows}):
        chosen = [i for i in rows if table[i]["modal"] == modal][:32]
        target = to_model(images[chosen])
        values = psnr(model(target), target)
        print(f"  val PSNR {modal}: {values.mean():.2f} dB over {len(chosen)}", flush=True)


if __name__ == "__main__":
    train(yaml.safe_load(Path(sys.argv[1]).read_text()))

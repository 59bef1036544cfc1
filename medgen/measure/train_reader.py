"""Training of a reader on the image-text table: masked multi-head cross-entropy.

Run as `python -m medgen.measure.train_reader configs/reader.yaml`. Rows without a label for a head
do not count for it, and each finding head sees one source's population only, so that it cannot
win by telling sources apart. No flips: left and right are the patient's. A share of each batch is
spoiled on purpose (shuffled, noise, flat) and labelled "none" for the modality head.
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
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.splits import is_validation
from medgen.measure.reader import MODALITY, NO_MODALITY, Head, Reader, to_pixels

IGNORED = -100


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The image-text table's rows, in file order."""
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def fold(row: dict[str, str], salt: str = "") -> str:
    """ "train", "val" or "test" of a table row; a salt carves another validation fold."""
    if row["split"] == "test":
        return "test"
    return "val" if is_validation(salt + row["group"]) else "train"


def targets(head: Head, rows: list[dict[str, str]]) -> np.ndarray:
    """Class index of each row for a head, (n,) int64; -100 where the row has no answer."""
    answers = np.full(len(rows), IGNORED, dtype=np.int64)
    for index, row in enumerate(rows):
        if head.modality not in (None, row["modal"]):
            continue
        if head.sources and row["source"] not in head.sources:
            continue
        answer = head.labels.get(row[head.by])
        if answer is not None:
            answers[index] = head.classes.index(answer)
    return answers


def sampling_weights(rows: list[dict[str, str]]) -> np.ndarray:
    """Square-root oversampling of rare (source, label) pairs; sums to 1."""
    keys = [f"{row['source']}|{row['label']}" for row in rows]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights = 1.0 / np.sqrt(np.maximum(counts, 8)[inverse])
    return weights / weights.sum()


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Random small affine maps, tone, blur and noise of (batch, 3, S, S) in [-1, 1]; no flips."""
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape or (n,), generator=generator) * (high - low) + low

    angle = uniform(-12, 12).deg2rad()
    scale, aspect = uniform(0.86, 1.14), uniform(0.95, 1.05)
    shift = uniform(-0.12, 0.12, n, 2)
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * scale * aspect, -angle.sin() * scale, shift[:, 0]], 1),
            torch.stack([angle.sin() * scale, angle.cos() * scale / aspect, shift[:, 1]], 1),
        ],
        1,
    )
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    output = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)

    soft = torch.rand(n, generator=generator) < 0.5
    for sigma in (0.6, 1.0, 1.5):
        chosen = soft & (torch.rand(n, generator=generator) < 0.4)
        if chosen.any():
            output[chosen] = blur(output[chosen], sigma)
    unit = (output + 1).clamp(1e-3, 2) / 2
    unit = unit ** uniform(-0.35, 0.35).exp()[:, None, None, None]
    output = unit * 2 - 1
    output = (
        output * uniform(0.75, 1.25)[:, None, None, None]
        + uniform(-0.15, 0.15)[:, None, None, None]
    )
    noise = uniform(0, 0.08) * (torch.rand(n, generator=generator) < 0.4)
    grain = torch.randn(n, 1, *pixels.shape[2:], generator=generator)
    output = output + grain * noise[:, None, None, None]
    return output.clamp(-1, 1)


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (batch, 3, S, S) with a standard deviation in pixels."""
    radius = max(1, math.ceil(2 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(pixels, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1).repeat(3, 1, 1, 1), groups=3)
    return F.conv2d(rows, kernel.view(1, 1, -1, 1).repeat(3, 1, 1, 1), groups=3)


def spoil(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Turn (n, 3, S, S) images into what no modality looks like: shuffled, noise, flat, smeared."""
    output = pixels.clone()
    size = pixels.shape[-1]
    for index in range(len(output)):
        kind = int(torch.randint(0, 6, (1,), generator=generator))
        level = torch.rand(3, generator=generator) * 2 - 1
        if kind in (0, 1):
            parts = (2, 4)[kind]
            side = size // parts
            tiles = output[index].unfold(1, side, side).unfold(2, side, side)
            tiles = tiles.reshape(3, parts * parts, side, side)
            order = torch.randperm(parts * parts, generator=generator)
            tiles = tiles[:, order].reshape(3, parts, parts, side, side)
            output[index] = tiles.permute(0, 1, 3, 2, 4).reshape(3, size, size)
        elif kind == 2:
            side = int(2 ** torch.randint(2, 8, (1,), generator=generator))
            channels = 1 if level[0] > 0 else 3
            small = torch.randn(1, channels, side, side, generator=generator) * 0.6
            output[index] = F.interpolate(small, size=(size, size), mode="bilinear")[0].clamp(-1, 1)
        elif kind == 3:
            flat = level.mean().expand(3) if level[0] > 0 else level
            output[index] = flat[:, None, None]
        elif kind == 4:
            output[index] = blur(pixels[index : index + 1], 14.0)[0]
        else:
            other = pixels[int(torch.randint(0, len(pixels), (1,), generator=generator))]
            output[index] = (pixels[index] + other.flip(1)) / 2 * (0.3 + 0.7 * level.abs().mean())
    return output


def adamw(net: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and filters alone, not biases and norms."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1]},
    ]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0)


def train(config: dict) -> Reader:
    """Train to `config["epochs"]` (averaged weights) and write the reader to `config["out"]`."""
    torch.manual_seed(config["seed"])
    table = read_table(config["table"])
    packed = np.load(config["images"], mmap_mode="r")
    salt = config.get("fold_salt", "")
    indices = np.array([i for i, row in enumerate(table) if fold(row, salt) == "train"])
    rows = [table[i] for i in indices]
    reader = Reader.build(config)
    averaged = Reader.build(config)
    averaged.net.load_state_dict(reader.net.state_dict())
    net = reader.net.train()
    answers = {head.name: torch.from_numpy(targets(head, rows)) for head in reader.heads}
    none = reader.heads[0].classes.index(NO_MODALITY)
    assert reader.heads[0].name == MODALITY
    weights = sampling_weights(rows)
    batch, epochs = config["batch"], config["epochs"]
    steps = math.ceil(len(rows) * epochs / batch)
    size = sum(parameter.numel() for parameter in net.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(rows)} images, {steps} steps", flush=True)
    optimizer = adamw(net, config["lr"], config["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=steps, pct_start=0.1
    )
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(config["seed"])
    draws = np.random.default_rng(config["seed"])
    started, cpu = time.time(), time.process_time()
    for step in range(steps):
        chosen = draws.choice(len(rows), batch, p=weights)
        pixels = augment(to_pixels(packed[indices[chosen]], config["size"]), generator)
        spoiled = config["spoiled"]
        if spoiled:
            pixels[:spoiled] = spoil(pixels[:spoiled], generator)
        _, logits = net(pixels.contiguous(memory_format=torch.channels_last))
        loss = torch.zeros(())
        for head in reader.heads:
            target = answers[head.name][chosen].clone()
            target[:spoiled] = none if head.name == MODALITY else IGNORED
            if (target == IGNORED).all():
                continue
            part = F.cross_entropy(
                reader.split(logits)[head.name],
                target,
                ignore_index=IGNORED,
                label_smoothing=config["label_smoothing"],
                reduction="sum",
            )
            loss = loss + head.weight * part / batch
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        _average(averaged, reader, min(config["average"], (1 + step) / (10 + step)))
        if (step + 1) % 50 == 0:
            rate = (step + 1) * batch / (time.time() - started)
            seconds = time.process_time() - cpu
            print(
                f"step {step + 1}/{steps} loss {loss.item():.3f} {rate:.0f} images/s "
                f"{seconds:.0f} CPU s",
                flush=True,
            )
    averaged.net.eval()
    averaged.save(config["out"])
    return averaged


@torch.no_grad()
def _average(averaged: Reader, reader: Reader, decay: float) -> None:
    for mean, value in zip(
        averaged.net.state_dict().values(), reader.net.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


if __name__ == "__main__":
    train(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")))

"""Training of a chest segmenter on masked films, on one processor core in minutes.

Run as `python -m medgen.measure.train_segmenter configs/segmenter_verifier.yaml`. Partial labels:
a film with a binary mask of both lungs teaches the lungs and says nothing of the heart. Never
flips: the heart lies on the patient's left.
"""

from __future__ import annotations

import csv
import math
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import load_square
from medgen.data.splits import is_validation
from medgen.measure.chest_masks import MaskedFilms, read_masked_films
from medgen.measure.segmentation import SIZE, build, load_segmenter, save_segmenter, standardise


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=generator)


def warp(stack: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate (±8°), scale, squash and shift films and masks together.

    Args:
        stack: (n, channels, H, W) float; outside the frame is 0 (black padding, no structure).
        generator: Source of the random numbers.
    """
    count = len(stack)
    angle = _uniform(count, -8, 8, generator) * (math.pi / 180)
    zoom = torch.exp(_uniform(count, -0.28, 0.25, generator))
    squash = torch.exp(_uniform(count, -0.15, 0.15, generator))
    squash = torch.where(torch.rand(count, generator=generator) < 0.7, squash, torch.ones(count))
    shift_x = _uniform(count, -0.15, 0.15, generator)
    shift_y = _uniform(count, -0.2, 0.2, generator)
    across, along = zoom * squash, zoom / squash
    cosine, sine = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [across * cosine, -along * sine, shift_x, across * sine, along * cosine, shift_y], dim=1
    ).view(count, 2, 3)
    grid = F.affine_grid(theta, [count, 1, *stack.shape[-2:]], align_corners=False)
    return F.grid_sample(stack, grid, mode="bilinear", align_corners=False)


def degrade(films: Tensor, generator: torch.Generator) -> Tensor:
    """Change exposure, contrast, sharpness and noise of (n, 1, H, W) films in 0-1."""
    count = len(films)

    def column(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, generator).view(count, 1, 1, 1)

    films = films.clamp(0, 1) ** torch.exp(column(-0.5, 0.5))
    rows = torch.linspace(-1, 1, films.shape[-2]).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, films.shape[-1]).view(1, 1, 1, -1)
    films = films * (1 + column(-0.2, 0.2) * rows + column(-0.2, 0.2) * columns)
    coarse = int(torch.randint(32, SIZE, (1,), generator=generator))
    soft = F.interpolate(
        F.interpolate(films, size=(coarse, coarse), mode="bilinear", antialias=True),
        size=films.shape[-2:],
        mode="bilinear",
    )
    # Blocks of 4x4 means, as strong JPEG compression leaves.
    blocky = F.interpolate(F.avg_pool2d(films, 4), scale_factor=4, mode="nearest")
    choice = torch.rand(count, 1, 1, 1, generator=generator)
    films = torch.where(choice < 0.4, soft, films)
    films = torch.where(choice > 0.85, 0.6 * films + 0.4 * blocky, films)
    noise = torch.empty_like(films).normal_(generator=generator) * column(0, 0.06)
    films = films + noise
    # Opaque or lucent patches: lungs must be found where consolidation hides their edge.
    for _ in range(2):
        x, y, radius = column(-0.8, 0.8), column(-0.8, 0.8), column(0.1, 0.45)
        patch = torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)
        films = films + patch * column(-0.15, 0.35) * (column(0, 1) < 0.5)
    return films


def no_films(films: Tensor, others: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pictures that are no chest film, for which a segmenter must find nothing.

    Args:
        films: (n, 1, H, W) chest films in 0-1, whose tiles are shuffled.
        others: (m, 1, H, W) images of other modalities in 0-1; m may be 0.
        count: Pictures wanted.
        generator: Source of the random numbers.

    Returns:
        (count, 1, H, W) in 0-1: other modalities, shuffled films, ramps and noise of any grain.
    """
    size = films.shape[-1]

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    pictures = []
    for _ in range(count):
        kind = integer(0, 5)
        if kind < 2 and len(others):
            pictures.append(others[integer(0, len(others))])
        elif kind == 2:
            tile = size // (2 ** integer(2, 4))
            tiles = films[integer(0, len(films))].unfold(1, tile, tile).unfold(2, tile, tile)
            tiles = tiles.reshape(-1, tile * tile)
            shuffled = tiles[torch.randperm(len(tiles), generator=generator)]
            pictures.append(F.fold(shuffled.T[None], (size, size), tile, stride=tile)[0])
        elif kind == 3:
            slope = torch.rand(3, generator=generator) - 0.5
            axis = torch.linspace(-1, 1, size)
            pictures.append(0.5 + slope[0] * axis[None, :, None] + slope[1] * axis[None, None])
        else:
            grain = 2 ** integer(0, 8)
            noise = torch.rand(1, 1, grain, grain, generator=generator)
            pictures.append(F.interpolate(noise, size=(size, size), mode="bilinear")[0])
    return torch.stack(pictures)


def read_others(data: str | Path, count: int, seed: int) -> np.ndarray:
    """Grey training images of other modalities than chest X-ray, (count, 128, 128) uint8."""
    data = Path(data)
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        paths = [
            row["path"]
            for row in csv.DictReader(stream)
            if row["modal"] != "Chest X-ray" and row["split"] == "train"
        ]
    picks = np.random.default_rng(seed).choice(len(paths), min(count, len(paths)), replace=False)
    images = [load_square(data / paths[pick], SIZE).mean(axis=-1) for pick in picks]
    return np.array(images, dtype=np.uint8).reshape(-1, SIZE, SIZE)


def segmentation_loss(logits: Tensor, targets: Tensor, known: Tensor, union: Tensor) -> Tensor:
    """Cross-entropy + Dice over the annotated channels, and over the union of the lungs.

    Args:
        logits: (n, 3, H, W).
        targets: (n, 3, H, W) coverage 0-1.
        known: (n, 3) 1 where the channel is annotated, else 0.
        union: (n, 1, H, W) coverage of both lungs, annotated on every film.
    """
    chances = logits.sigmoid()
    both = 1 - (1 - chances[:, :1]) * (1 - chances[:, 1:2])
    predicted = torch.cat([chances, both], dim=1).clamp(1e-5, 1 - 1e-5)
    wanted = torch.cat([targets, union], dim=1)
    weight = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
    entropy = F.binary_cross_entropy(predicted, wanted, reduction="none").mean(dim=(2, 3))
    overlap = (predicted * wanted).sum(dim=(2, 3))
    dice = (2 * overlap + 1) / (predicted.sum(dim=(2, 3)) + wanted.sum(dim=(2, 3)) + 1)
    return ((entropy + 1 - dice) * weight).sum() / weight.sum()


def fit(
    films: MaskedFilms, chosen: np.ndarray, config: dict, others: np.ndarray | None = None
) -> nn.Module:
    """Train a segmenter on the chosen rows; returns the moving average of its weights.

    Args:
        films: All masked films.
        chosen: Row numbers to train on. Rows with an annotated heart are drawn twice as often.
        config: `architecture`, `model`, `seed`, `steps`, `batch`, `lr`, `weight_decay`;
            optionally `start`, a folder whose weights to go on from, and `no_films`, how many
            pictures without a chest join each batch.
        others: (m, 128, 128) uint8 images of other modalities for those.
    """
    torch.manual_seed(config["seed"])
    draws = torch.Generator().manual_seed(config["seed"])
    stack = torch.cat(
        [
            torch.from_numpy(films.films[chosen]).float()[:, None] / 255,
            torch.from_numpy(films.targets[chosen]),
            torch.from_numpy(films.union[chosen])[:, None],
        ],
        dim=1,
    )
    known = torch.from_numpy(films.known[chosen]).float()
    chance = 1 + known[:, 2]
    pool = torch.from_numpy(np.zeros((0, SIZE, SIZE), np.uint8) if others is None else others)
    pool = pool.float()[:, None] / 255
    empty = config.get("no_films", 0)
    model = build(config)
    if "start" in config:
        model.load_state_dict(load_segmenter(config["start"]).state_dict())
    model = model.to(memory_format=torch.channels_last)
    average = build(config).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=config["steps"], pct_start=0.1
    )
    started, running = time.process_time(), 0.0
    for step in range(1, config["steps"] + 1):
        rows = torch.multinomial(chance, config["batch"], replacement=True, generator=draws)
        warped = warp(stack[rows], draws)
        annotated = known[rows]
        if empty:
            blank = torch.zeros(empty, 5, SIZE, SIZE)
            blank[:, :1] = no_films(stack[:, :1], pool, empty, draws)
            warped = torch.cat([warped, blank])
            annotated = torch.cat([annotated, torch.ones(empty, annotated.shape[1])])
        logits = model(standardise(degrade(warped[:, :1], draws)))
        loss = segmentation_loss(logits, warped[:, 1:4], annotated, warped[:, 4:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.99, step / (step + 10))
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            seconds = time.process_time() - started
            print(f"step {step} loss {running:.3f} {seconds:.0f} s processor time", flush=True)
    return average.eval()


def fold_of(group: str, folds: int) -> int:
    """Cross-validation fold of a patient group, stable across runs and machines."""
    return zlib.crc32(f"segmenter {group}".encode()) % folds


def training_rows(films: MaskedFilms, hold_out: list[str]) -> np.ndarray:
    """Rows outside the held-out sets; `hold_out` may name "test" and "validation"."""
    return np.array(
        [
            row
            for row, (split, group) in enumerate(zip(films.splits, films.groups, strict=True))
            if not (split == "test" and "test" in hold_out)
            and not (split == "train" and is_validation(group) and "validation" in hold_out)
        ]
    )


def main(path: str) -> None:
    """Train what a configuration file says and write it to its `out` folder."""
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    films = read_masked_films(config["data"])
    chosen = training_rows(films, config["hold_out"])
    print(f"{len(chosen)} films, {int(films.known[chosen, 2].sum())} with a heart", flush=True)
    others = read_others(config["data"], config.get("others", 0), config["seed"])
    model = fit(films, chosen, config, others)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    save_segmenter(model, config, config["out"])


if __name__ == "__main__":
    main(sys.argv[1])

"""Training of evaluation's encoder, on real images of the training side only.

Run as `python -m medgen.evaluation.train_encoder configs/encoder_evaluation.yaml`. First the
trunk, to tell source and class, the kind and strength of a distortion, and the coarse layout at
once; then both halves are whitened on clean and distorted images, and a class head is fitted.
Images move by whole pixels only (resampling blurs), never flip, and no validation or test row is
read.
"""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medgen.evaluation.encoder import CompactEncoder, Trunk, to_pixels
from medgen.measure.train_reader import adamw, blur, fold, read_table, sampling_weights

# What the distortion head grades, in the order of its outputs.
DISTORTIONS = ("blur", "noise", "downscaling", "compression", "warp", "foreign patch")
LAYOUT = 8  # the layout head draws LAYOUT x LAYOUT grey means and the mean of each colour


class Pretraining(nn.Module):
    """A trunk and the heads it is trained by; only the trunk is kept."""

    def __init__(self, trunk: dict, classes: int) -> None:
        super().__init__()
        self.trunk = Trunk(**trunk)
        self.classes = nn.Linear(self.trunk.width, classes)
        self.distortions = nn.Linear(self.trunk.width, len(DISTORTIONS))
        self.layout = nn.Linear(self.trunk.width, LAYOUT * LAYOUT + 3)


def name_classes(rows: list[dict[str, str]], least: int) -> list[str]:
    """Class of each row: its source and label, or the source's "other" where the label is rare."""
    counts = Counter((row["source"], row["label"]) for row in rows)
    return [
        f"{row['source']}: "
        + (row["label"] if counts[row["source"], row["label"]] >= least else "other")
        for row in rows
    ]


def distort(
    pixels: Tensor,
    kind: str,
    strength: float,
    others: Tensor,
    most: dict,
    draws: np.random.Generator,
) -> Tensor:
    """One distorted image.

    Args:
        pixels: (3, S, S) in [-1, 1].
        kind: One of `DISTORTIONS`.
        strength: Above 0, at most 1.
        others: (n, 3, S, S) images that a foreign patch may come from.
        most: Quantity at strength 1, by kind (`configs/encoder_evaluation.yaml`).
        draws: Source of chance.

    Returns:
        (3, S, S) in [-1, 1].
    """
    size = pixels.shape[-1]
    quantity = float(most[kind]) * strength**1.5
    if kind == "blur":
        return blur(pixels[None], max(quantity, 0.05))[0]
    if kind == "noise":
        channels = 1 if draws.random() < 0.6 else 3
        grain = torch.from_numpy(draws.standard_normal((channels, size, size), np.float32))
        return (pixels + quantity * grain).clamp(-1, 1)
    if kind == "downscaling":
        side = max(8, round(size / (1 + quantity)))
        small = F.interpolate(pixels[None], size=(side, side), mode="bilinear", antialias=True)
        return F.interpolate(small, size=(size, size), mode="bilinear")[0]
    if kind == "compression":
        array = pixels.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        quality = round(75 - float(most[kind]) * strength)
        Image.fromarray(array).save(stream, format="JPEG", quality=quality)
        decoded = np.asarray(Image.open(stream), dtype=np.float32)
        return torch.from_numpy(decoded).permute(2, 0, 1).div(127.5).sub(1)
    if kind == "warp":
        coarse = draws.standard_normal((1, 2, 6, 6), np.float32)
        field = F.interpolate(torch.from_numpy(coarse), size=(size, size), mode="bicubic")
        base = F.affine_grid(torch.eye(2, 3)[None], [1, 3, size, size], align_corners=False)
        grid = base + field.permute(0, 2, 3, 1) * (2 * quantity / size)
        warped = F.grid_sample(
            pixels[None], grid, mode="bicubic", padding_mode="border", align_corners=False
        )
        return warped[0].clamp(-1, 1)
    side = max(4, round(size * float(most[kind]) * strength))
    top, left = (int(v) for v in draws.integers(0, size - side + 1, 2))
    other = others[int(draws.integers(len(others)))]
    output = pixels.clone()
    output[:, top : top + side, left : left + side] = other[:, top : top + side, left : left + side]
    return output


def distort_batch(
    pixels: Tensor, recipe: dict, draws: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Distort a share of (n, 3, S, S); returns the images and strengths (n, kinds)."""
    output = pixels.clone()
    strengths = torch.zeros(len(pixels), len(DISTORTIONS))
    for index in range(len(pixels)):
        if draws.random() < recipe["clean"]:
            continue
        count = 2 if draws.random() < recipe["second"] else 1
        for kind in draws.choice(len(DISTORTIONS), count, replace=False):
            strength = float(draws.uniform(0.1, 1))
            strengths[index, kind] = strength
            output[index] = distort(
                output[index], DISTORTIONS[kind], strength, pixels, recipe, draws
            )
    return output, strengths


def augment(images: np.ndarray, recipe: dict, draws: np.random.Generator) -> Tensor:
    """Whole-pixel shifts and changes of tone; (n, S, S, 3) uint8 -> (n, 3, S, S) in [-1, 1]."""
    size, most = images.shape[1], recipe["shift"]
    grey = np.linspace(1e-3, 1, 256)
    output = np.empty(images.shape, dtype=np.float32)
    for index, image in enumerate(images):
        top, left = draws.integers(0, 2 * most + 1, 2)
        gamma, contrast, brightness = (
            draws.uniform(-recipe[name], recipe[name])
            for name in ("gamma", "contrast", "brightness")
        )
        tone = (2 * grey ** np.exp(gamma) - 1) * (1 + contrast) + brightness
        padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
        moved = padded[top : top + size, left : left + size]
        output[index] = tone.clip(-1, 1).astype(np.float32)[moved]
    return torch.from_numpy(output).permute(0, 3, 1, 2)


def layout(pixels: Tensor) -> Tensor:
    """(n, 3, S, S) -> (n, LAYOUT² + 3): coarse grey means free of tone, and mean colours."""
    grey = F.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), LAYOUT).flatten(1)
    grey = (grey - grey.mean(1, keepdim=True)) / (grey.std(1, keepdim=True) + 0.05)
    return torch.cat([grey, pixels.mean((2, 3))], 1)


@dataclass(frozen=True)
class TrainingSide:
    """The rows that training may read: packed images, and where in them each row is."""

    packed: np.ndarray
    indices: np.ndarray
    rows: list[dict[str, str]]
    classes: list[str]
    answers: np.ndarray

    @classmethod
    def read(cls, config: dict) -> TrainingSide:
        """Training rows of `config["table"]`, without the validation fold of its own salt."""
        table = read_table(config["table"])
        indices = [i for i, row in enumerate(table) if fold(row, config["fold_salt"]) == "train"]
        rows = [table[i] for i in indices]
        named = name_classes(rows, config["least_of_class"])
        classes = sorted(set(named))
        answers = np.array([classes.index(name) for name in named])
        packed = np.load(config["images"], mmap_mode="r")
        return cls(packed, np.array(indices), rows, classes, answers)

    def images(self, rows: np.ndarray) -> np.ndarray:
        """(n, S, S, 3) uint8 images of some training rows."""
        return self.packed[self.indices[rows]]


def train_trunk(config: dict, side: TrainingSide) -> Trunk:
    """Train for `config["steps"]`; the moving average of the weights."""
    torch.manual_seed(config["seed"])
    draws = np.random.default_rng(config["seed"])
    net = Pretraining(config["model"]["trunk"], len(side.classes))
    net = net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = AveragedModel(
        net, multi_avg_fn=get_ema_multi_avg_fn(config["average"]), use_buffers=True
    )
    size = sum(parameter.numel() for parameter in net.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(side.rows)} images", flush=True)
    optimizer = adamw(net, config["lr"], config["weight_decay"])
    steps, batch, parts = config["steps"], config["batch"], config["losses"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=steps, pct_start=0.1
    )
    weights = sampling_weights(side.rows)
    answers = torch.from_numpy(side.answers)
    started, cpu = time.time(), time.process_time()
    for step in range(steps):
        chosen = draws.choice(len(side.rows), batch, p=weights)
        clean = augment(side.images(chosen), config["augmentation"], draws)
        pixels, strengths = distort_batch(clean, config["distortions"], draws)
        features = net.trunk(pixels.contiguous(memory_format=torch.channels_last))
        losses = {
            "classes": F.cross_entropy(
                net.classes(features),
                answers[chosen],
                label_smoothing=config["label_smoothing"],
            ),
            "distortions": F.smooth_l1_loss(net.distortions(features), strengths, beta=0.2),
            "layout": F.mse_loss(net.layout(features), layout(clean)),
        }
        loss = torch.stack([parts[name] * value for name, value in losses.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
        if (step + 1) % 20 == 0:
            said = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            rate = (step + 1) * batch / (time.time() - started)
            seconds = time.process_time() - cpu
            print(
                f"step {step + 1}/{steps} {said} {rate:.0f} images/s {seconds:.0f} CPU s",
                flush=True,
            )
    net.load_state_dict(averaged.module.state_dict())
    return net.trunk.eval()


def whitening(features: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
    """Principal directions brought to variance 1.

    Without it the few directions that tell modalities apart would outweigh all others.

    Args:
        features: (n, d).
        width: Directions kept.

    Returns:
        Weight (width, d) and bias (width,) of a linear layer.
    """
    found = PCA(width, svd_solver="full").fit(features.astype(np.float64))
    weight = found.components_ / np.sqrt(found.explained_variance_)[:, None]
    return torch.from_numpy(weight).float(), torch.from_numpy(-weight @ found.mean_).float()


@torch.inference_mode()
def join(trunk: Trunk, config: dict, side: TrainingSide) -> CompactEncoder:
    """Whiten and join a trained trunk and the frequency bands, and fit the class head."""
    recipe, draws = config["join"], np.random.default_rng(config["seed"])
    width = recipe["trunk"] + recipe["bands"]
    encoder = CompactEncoder.build(
        {
            **config,
            "classes": side.classes,
            "model": {"trunk": config["model"]["trunk"], "width": width},
        }
    )
    net = encoder.net
    net.trunk.load_state_dict(trunk.state_dict())
    clean, mixed = [], []
    count = min(recipe["images"], len(side.rows))
    chosen = np.sort(draws.choice(len(side.rows), count, replace=False))
    for start in range(0, count, 32):
        pixels = to_pixels(side.images(chosen[start : start + 32]), config["size"])
        clean.append(net.halves(pixels))
        if draws.random() < recipe["distorted"]:
            mixed.append(net.halves(distort_batch(pixels, config["distortions"], draws)[0]))
    both = torch.cat([*clean, *mixed]).numpy()
    net.join.weight.zero_()
    parts = ((0, trunk.width, recipe["trunk"]), (trunk.width, both.shape[1], recipe["bands"]))
    row = 0
    for start, end, kept in parts:
        weight, bias = whitening(both[:, start:end], kept)
        net.join.weight[row : row + kept, start:end] = weight
        net.join.bias[row : row + kept] = bias
        row += kept
    features = net.join(torch.cat(clean)).numpy()
    head = LogisticRegression(C=recipe["regularisation"], max_iter=300)
    head.fit(features, side.answers[chosen])
    net.classes.weight.copy_(torch.from_numpy(head.coef_))
    net.classes.bias.copy_(torch.from_numpy(head.intercept_))
    net.join.weight[recipe["trunk"] :] *= recipe["balance"]
    net.join.bias[recipe["trunk"] :] *= recipe["balance"]
    net.classes.weight[:, recipe["trunk"] :] /= recipe["balance"]
    return encoder


def train(config: dict) -> CompactEncoder:
    """Train both parts and write the encoder to `config["out"]`."""
    side = TrainingSide.read(config)
    encoder = join(train_trunk(config, side), config, side)
    encoder.save(config["out"])
    return CompactEncoder.load(config["out"])


if __name__ == "__main__":
    train(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")))

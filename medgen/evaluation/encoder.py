"""Evaluation's own image encoder: features in which bad images lie away from real ones.

Two halves. What is shown: a small residual network (He et al. 2016) on 256x256 pixels, trained on
real images of the five modalities. How it is drawn: energies of fixed frequency bands, which blur,
noise and compression change and classifiers ignore. Each is whitened, and the second weighs half,
so that neither drowns the other. Other architecture, seed and fold than every network of the
verifier. Knows pixels; knows no metric and no prompt.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.fft import idct
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.errors import BadInput

WEIGHTS = Path(__file__).parent / "weights" / "encoder"


class _Block(nn.Module):
    """Pre-activated residual block; halves the grid where `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.skip = nn.Sequential(
            nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
            nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity(),
        )

    def forward(self, grid: Tensor) -> Tensor:
        active = F.silu(self.norm1(grid))
        inner = self.conv2(F.silu(self.norm2(self.conv1(active))))
        return inner + self.skip(active)


class Trunk(nn.Module):
    """The trained half: `width` numbers of mean 0 and variance 1 on training images.

    Means of every stage and the spread of the last are projected: texture lives in the early
    stages, anatomy in the late ones.
    """

    def __init__(self, stem: int, widths: list[int], blocks: list[int], width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 7, 4, 3)
        stages = []
        for (inputs, outputs), count in zip(pairwise([stem, *widths]), blocks, strict=True):
            stages.append(
                nn.Sequential(
                    _Block(inputs, outputs, 2),
                    *(_Block(outputs, outputs, 1) for _ in range(count - 1)),
                )
            )
        self.stages = nn.ModuleList(stages)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in widths)
        self.project = nn.Linear(sum(widths) + widths[-1], width)
        self.standardise = nn.BatchNorm1d(width, affine=False)
        self.width = width

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, S, S) in [-1, 1] -> (batch, width)."""
        grid = self.stem(pixels)
        pooled = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            grid = stage(grid)
            active = F.silu(norm(grid))
            pooled.append(active.mean((2, 3)))
        pooled.append(active.var((2, 3)).add(1e-4).sqrt())
        return self.standardise(self.project(torch.cat(pooled, 1)))


class Bands(nn.Module):
    """The fixed half: log energies of the 63 frequencies of the 8x8 cosine transform.

    Of each frequency the log of the mean energy, which edges rule, and the mean of the log energy,
    which flat parts rule: noise fills those.
    """

    SIDE = 8
    WIDTH = 2 * (SIDE**2 - 1)
    FAINT = 1e-5  # about the energy of rounding to 8 bits
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        basis = idct(np.eye(self.SIDE), axis=0, norm="ortho")
        filters = np.einsum("iu,jv->uvij", basis, basis).reshape(-1, 1, self.SIDE, self.SIDE)[1:]
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, S, S) in [-1, 1] -> (batch, WIDTH)."""
        grey = pixels.mean(1, keepdim=True)
        energy = F.conv2d(grey, self.filters, stride=self.SIDE // 2).square()
        return torch.cat(
            [
                energy.mean((2, 3)).add(self.FAINT).log(),
                energy.add(self.FAINT).log().mean((2, 3)),
            ],
            1,
        )


class EncoderNet(nn.Module):
    """Both halves, joined into whitened features, and a linear class head on them."""

    def __init__(self, trunk: dict, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = Trunk(**trunk)
        self.bands = Bands()
        self.join = nn.Linear(self.trunk.width + Bands.WIDTH, width)
        self.classes = nn.Linear(width, classes)

    def halves(self, pixels: Tensor) -> Tensor:
        """(batch, 3, S, S) in [-1, 1] -> (batch, trunk's width + bands), not yet whitened."""
        return torch.cat([self.trunk(pixels), self.bands(pixels)], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, S, S) in [-1, 1] -> features (batch, width)."""
        return self.join(self.halves(pixels))


def to_pixels(images: np.ndarray, size: int) -> Tensor:
    """(n, H, H, 3) uint8 -> (n, 3, size, size) float32 in [-1, 1], resized with antialiasing.

    Raises:
        BadInput: The array has another shape or type.
    """
    if (
        images.ndim != 4
        or images.shape[3] != 3
        or images.shape[1] != images.shape[2]
        or images.dtype != np.uint8
        or images.shape[1] == 0
    ):
        raise BadInput(
            f"images have shape {images.shape} and type {images.dtype}: "
            "the encoder takes (n, H, H, 3) uint8 squares"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[-1] != size and len(pixels):
        pixels = F.interpolate(
            pixels, size=(size, size), mode="bicubic", antialias=True, align_corners=False
        ).clamp_(0, 255)
    return pixels.div_(127.5).sub_(1.0)


class CompactEncoder:
    """A trained encoder: pixels in, features and class logits out.

    `name` holds the first digits of its weights' SHA-256: figures of other weights are figures of
    another scorer.
    """

    def __init__(self, net: EncoderNet, config: dict, name: str = "untrained encoder") -> None:
        """Wrap a network; `config` has `size`, `model` and `classes` (names, in head order)."""
        self.net = net.eval()
        self.config = config
        self.name = name
        self.size = int(config["size"])
        self.width = int(config["model"]["width"])
        self.classes: list[str] = list(config["classes"])

    @classmethod
    def build(cls, config: dict) -> CompactEncoder:
        """An untrained encoder from its configuration."""
        return cls(EncoderNet(classes=len(config["classes"]), **config["model"]), config)

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> CompactEncoder:
        """Read an encoder from a folder written by `save`.

        Raises:
            BadInput: The folder has no readable configuration or weights.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            encoder = cls.build(config)
            content = (folder / "encoder.safetensors").read_bytes()
            encoder.net.load_state_dict({k: _widen(v) for k, v in load(content).items()})
            encoder.name = f"{config['name']} ({hashlib.sha256(content).hexdigest()[:8]})"
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"no encoder in {folder} ({reason}): train one with medgen.evaluation.train_encoder"
            ) from error
        encoder.net.requires_grad_(False)
        return encoder

    def save(self, folder: str | Path) -> None:
        """Write fp16 weights and the configuration, each file atomically."""
        tensors = {
            key: (value.half() if value.is_floating_point() else value).contiguous()
            for key, value in self.net.state_dict().items()
        }
        write_atomic(Path(folder) / "encoder.safetensors", save(tensors))
        kept = {key: self.config[key] for key in ("name", "size", "seed", "model", "classes")}
        write_atomic(Path(folder) / "config.json", json.dumps(kept, indent=1) + "\n")

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, batch: int = 32) -> np.ndarray:
        """Features (n, width) float32 of (n, H, H, 3) uint8 images.

        Raises:
            BadInput: The array has another shape or type.
        """
        parts = [np.zeros((0, self.width), dtype=np.float32)]
        for start in range(0, max(len(images), 1), batch):
            pixels = to_pixels(images[start : start + batch], self.size)
            if len(pixels):
                parts.append(self.net(pixels).numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def logits(self, features: np.ndarray) -> np.ndarray:
        """Class logits (n, classes) float32 of features (n, width)."""
        return self.net.classes(torch.from_numpy(np.asarray(features, np.float32))).numpy()


@lru_cache
def bundled_encoder() -> CompactEncoder:
    """The encoder that comes with medgen."""
    return CompactEncoder.load(WEIGHTS)


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value

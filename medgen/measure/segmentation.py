"""Small segmenters: of the frontal chest film (lungs, cardiomediastinum), and other structures.

Architectures and their weights on disk; knows pixels and masks, nothing of ratios, findings or
verdicts (`medgen.measure.chest` and `medgen.measure.vessels` measure). The U-Net (Ronneberger et
al. 2015) serves the verifier; the dilated residual net (Yu et al. 2017) is kept for evaluation,
which loads its own weights. Both see 128x128 grey films at half or quarter resolution through
pixel unshuffling, so that one processor core suffices.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.errors import BadInput

SIZE = 128
STRUCTURES = ("right lung", "left lung", "cardiomediastinum")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class _DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            _norm(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            _norm(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net on unshuffled films.

    Input (batch, 1, H, H) standardised grey, output (batch, structures, H, H) logits; for chest
    films in the order of `STRUCTURES`, independent because lung and heart overlap in projection.
    """

    def __init__(
        self, widths: list[int], structures: int = len(STRUCTURES), unshuffle: int = 2
    ) -> None:
        """Lay the network out.

        Args:
            widths: Channels by level, multiples of 8; H is halved between levels.
            structures: Output channels.
            unshuffle: By how much the first level is coarser than the film; 1 keeps thin lines.
        """
        super().__init__()
        self.unshuffle = unshuffle
        self.encoders = nn.ModuleList(
            _DoubleConv(inputs, outputs)
            for inputs, outputs in zip([unshuffle**2, *widths[:-1]], widths, strict=True)
        )
        self.decoders = nn.ModuleList(
            _DoubleConv(widths[level + 1] + widths[level], widths[level])
            for level in reversed(range(len(widths) - 1))
        )
        self.head = nn.Conv2d(widths[0], unshuffle**2 * structures, 1)

    def forward(self, films: Tensor) -> Tensor:
        """Logits of (batch, 1, H, H) standardised films."""
        features = F.pixel_unshuffle(films, self.unshuffle)
        skips = []
        for level, encoder in enumerate(self.encoders):
            features = encoder(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for decoder in self.decoders:
            upsampled = F.interpolate(features, scale_factor=2, mode="bilinear")
            features = decoder(torch.cat([upsampled, skips.pop()], dim=1))
        return F.pixel_shuffle(self.head(features), self.unshuffle)


class _DilatedBlock(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(features)))
        return features + self.conv2(F.silu(self.norm2(hidden)))


class DilatedResidualNet(nn.Module):
    """Residual blocks of growing dilation at one resolution, then bilinear decoding; no skips.

    Input and output as `UNet`. The film is unshuffled 4x4, so features stay at 32x32.
    """

    def __init__(self, width: int, dilations: list[int], decoder: list[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(16, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_DilatedBlock(width, dilation) for dilation in dilations))
        self.context = nn.Linear(width, width)
        self.decoders = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), _norm(outputs), nn.SiLU()
            )
            for inputs, outputs in zip([width, *decoder[:-1]], decoder, strict=True)
        )
        self.head = nn.Conv2d(decoder[-1], len(STRUCTURES), 1)

    def forward(self, films: Tensor) -> Tensor:
        """Logits of (batch, 1, 128, 128) standardised films."""
        features = self.blocks(self.stem(F.pixel_unshuffle(films, 4)))
        features = features + self.context(features.mean(dim=(2, 3)))[:, :, None, None]
        for level, decoder in enumerate(self.decoders):
            if level:
                features = F.interpolate(features, scale_factor=2, mode="bilinear")
            features = decoder(features)
        return F.interpolate(self.head(features), size=films.shape[-2:], mode="bilinear")


ARCHITECTURES: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "dilated_residual": DilatedResidualNet,
}


def to_films(images: np.ndarray) -> Tensor:
    """Grey, resize and standardise pixels for a segmenter.

    Args:
        images: (n, H, H, 3) or (n, H, H) uint8 square films (`medgen.data.images.square`).

    Returns:
        (n, 1, 128, 128) float32, each film with mean 0 and standard deviation 1.

    Raises:
        BadInput: The array has another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[1] != images.shape[2]:
        raise BadInput(
            f"films must be uint8 of shape (n, H, H[, 3]), not {images.dtype} {images.shape}: "
            "square them first (medgen.data.images.load_square)"
        )
    grey = torch.from_numpy(np.ascontiguousarray(images)).float()
    grey = (grey.mean(dim=-1) if grey.ndim == 4 else grey)[:, None]
    if grey.shape[-1] != SIZE:
        grey = F.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    return standardise(grey)


def standardise(grey: Tensor) -> Tensor:
    """(n, 1, H, W) grey values to mean 0 and standard deviation 1, film by film."""
    deviation = grey.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-3)
    return (grey - grey.mean(dim=(1, 2, 3), keepdim=True)) / deviation


def build(config: dict) -> nn.Module:
    """Make a segmenter from `{"architecture": name, "model": {arguments}}`."""
    if config.get("architecture") not in ARCHITECTURES:
        raise BadInput(
            f"unknown segmenter architecture {config.get('architecture')!r}: "
            f"use one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[config["architecture"]](**config["model"])


def save_segmenter(model: nn.Module, config: dict, folder: str | Path) -> None:
    """Write fp16 weights and their configuration to a folder, each file atomically."""
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    write_atomic(Path(folder) / "segmenter.safetensors", save(tensors))
    kept = {key: config[key] for key in ("architecture", "model", "seed")}
    write_atomic(Path(folder) / "config.json", json.dumps(kept, indent=2) + "\n")


def load_segmenter(folder: str | Path) -> nn.Module:
    """Read a segmenter written by `save_segmenter`, ready for inference.

    Raises:
        BadInput: The folder has no readable configuration or weights.
    """
    folder = Path(folder)
    try:
        model = build(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        weights = load_file(folder / "segmenter.safetensors")
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"no segmenter in {folder} ({reason}): train one with medgen.measure.train_segmenter"
        ) from error
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def probabilities(model: nn.Module, images: np.ndarray, batch: int = 32) -> np.ndarray:
    """Structure probabilities of square films.

    Args:
        model: A segmenter.
        images: (n, H, H[, 3]) uint8.
        batch: Films a forward pass.

    Returns:
        (n, 3, 128, 128) float32 in [0, 1], channels as `STRUCTURES`.
    """
    if len(images) == 0:
        return np.zeros((0, len(STRUCTURES), SIZE, SIZE), dtype=np.float32)
    parts = [
        model(to_films(images[start : start + batch])).sigmoid()
        for start in range(0, len(images), batch)
    ]
    return torch.cat(parts).numpy()

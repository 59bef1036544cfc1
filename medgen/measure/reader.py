"""Readers: small convolutional networks that name an image's modality and its findings.

One trunk, one linear head a question (modality, brain tumour type, child or adult film, ...). A
head answers only for the modality and the sources it was trained in; which of its answers may be
trusted is said by the card beside the weights, not here. Knows pixels and class names, nothing of
prompts or verdicts. The residual trunk (He et al. 2016) serves the verifier, the memorisation check
and (other weights) steering; the separable trunk (Sandler et al. 2018) is for evaluation, which has
its own weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.errors import BadInput

WEIGHTS = Path(__file__).parent / "weights" / "reader"
MODALITY = "modality"
POPULATION = "film_population"
NO_MODALITY = "none"


@dataclass(frozen=True)
class Head:
    """One question: its classes, and which table rows answer it.

    `labels` maps a table label to a class; `by` says which column they come from ("label",
    "modal" or "source"). An empty `sources` means every source of the modality.
    """

    name: str
    classes: list[str]
    labels: dict[str, str]
    by: str = "label"
    modality: str | None = None
    sources: list[str] = field(default_factory=list)
    weight: float = 1.0


@dataclass(frozen=True)
class Reading:
    """What a reader says of one image.

    `heads` maps head name to class name to calibrated probability, for all heads; `embedding` is
    the L2-normalised penultimate vector, (dimensions,) float32.
    """

    modality: str
    modality_probabilities: dict[str, float]
    heads: dict[str, dict[str, float]]
    embedding: np.ndarray


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.conv2 = _conv(outputs, outputs, 3)
        self.skip = nn.Sequential(
            nn.AvgPool2d(stride) if stride > 1 else nn.Identity(), _conv(inputs, outputs, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(features))) + self.skip(features))


class ResidualTrunk(nn.Sequential):
    """(batch, 3, H, W) in [-1, 1] -> (batch, widths[-1]); halves H by `2 ** (len(widths))`."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__(
            _conv(3, widths[0], 5, 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *(
                _ResidualBlock(inputs, outputs, 1 if level == 0 else 2)
                for level, (inputs, outputs) in enumerate(pairwise(widths))
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.dimensions = widths[-1]


class _InvertedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _conv(inputs, hidden, 1)
        self.spatial = _conv(hidden, hidden, 5, stride, groups=hidden)
        self.project = _conv(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.silu(self.spatial(F.silu(self.expand(features))))
        output = self.project(hidden)
        return features + output if self.residual else output


class SeparableTrunk(nn.Sequential):
    """Unshuffled pixels and inverted separable blocks; (batch, 3, H, W) -> (batch, widths[-1])."""

    def __init__(self, widths: list[int], blocks: list[int], expansion: int = 3) -> None:
        layers: list[nn.Module] = [nn.PixelUnshuffle(4), _conv(48, widths[0], 3), nn.SiLU()]
        inputs = widths[0]
        for level, (outputs, count) in enumerate(zip(widths[1:], blocks, strict=True)):
            for block in range(count):
                stride = 2 if block == 0 and level > 0 else 1
                layers.append(_InvertedBlock(inputs, outputs, stride, expansion))
                inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dimensions = inputs


TRUNKS: dict[str, type[nn.Module]] = {"residual": ResidualTrunk, "separable": SeparableTrunk}


class ReaderNet(nn.Module):
    """A trunk with one linear layer for all heads; see `split` for the parts."""

    def __init__(self, trunk: str, trunk_arguments: dict, outputs: int, dropout: float) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise BadInput(f"unknown reader trunk {trunk!r}: use one of {', '.join(TRUNKS)}")
        self.trunk = TRUNKS[trunk](**trunk_arguments)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(int(self.trunk.dimensions), outputs)  # type: ignore[arg-type]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, S, S) in [-1, 1] -> embeddings (batch, d), logits (batch, outputs)."""
        features = self.trunk(pixels)
        return F.normalize(features, dim=1), self.heads(self.dropout(features))


def to_pixels(images: np.ndarray, size: int) -> Tensor:
    """Square uint8 images to a network's input.

    Args:
        images: (n, H, H, 3) uint8.
        size: Side of the network's input.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].

    Raises:
        BadInput: The array has another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise BadInput(
            f"images must be uint8 of shape (n, H, W, 3), not {images.dtype} {images.shape}: "
            "load them with medgen.data.images.load_square"
        )
    if images.shape[1] != images.shape[2] or images.shape[1] < 32:
        raise BadInput(
            f"images are {images.shape[2]}x{images.shape[1]} pixels, not square or under 32: "
            "square them first (medgen.data.images.load_square)"
        )
    pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return pixels.div_(127.5).sub_(1.0)


class Reader:
    """A trained reader: pixels in, calibrated probabilities and embeddings out."""

    def __init__(self, net: ReaderNet, config: dict) -> None:
        """Wrap a network; `config` has `size`, `heads` and, once calibrated, `temperatures`."""
        self.net = net.eval()
        self.config = config
        self.size = int(config["size"])
        self.heads = [Head(**head) for head in config["heads"]]
        self.temperatures: dict[str, float] = config.get("temperatures", {})

    @classmethod
    def build(cls, config: dict) -> Reader:
        """An untrained reader from its configuration."""
        outputs = sum(len(head["classes"]) for head in config["heads"])
        return cls(ReaderNet(outputs=outputs, **config["model"]), config)

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> Reader:
        """Read a reader from a folder written by `save`.

        Raises:
            BadInput: The folder has no readable configuration or weights.
        """
        folder = Path(folder)
        try:
            reader = cls.build(json.loads((folder / "config.json").read_text(encoding="utf-8")))
            weights = load_file(folder / "reader.safetensors")
            reader.net.load_state_dict({name: _widen(value) for name, value in weights.items()})
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"no reader in {folder} ({reason}): train one with medgen.measure.train_reader"
            ) from error
        reader.net.requires_grad_(False)
        return reader

    def save(self, folder: str | Path) -> None:
        """Write fp16 weights and the configuration, each file atomically."""
        tensors = {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in self.net.state_dict().items()
        }
        write_atomic(Path(folder) / "reader.safetensors", save(tensors))
        kept = {key: self.config[key] for key in ("size", "seed", "model", "heads")}
        kept["temperatures"] = self.temperatures
        write_atomic(Path(folder) / "config.json", json.dumps(kept, indent=1) + "\n")

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """Cut (batch, outputs) logits into one (batch, classes) tensor a head."""
        sizes = [len(head.classes) for head in self.heads]
        return {
            head.name: part for head, part in zip(self.heads, logits.split(sizes, 1), strict=True)
        }

    @torch.inference_mode()
    def forward(self, images: np.ndarray, batch: int = 64) -> tuple[np.ndarray, dict[str, Tensor]]:
        """Embeddings (n, dimensions) float32 and raw logits by head of (n, H, H, 3) uint8."""
        pixels = to_pixels(images, self.size)
        if len(pixels) == 0:
            raise BadInput("no image to read: pass at least one")
        parts = [self.net(pixels[start : start + batch]) for start in range(0, len(pixels), batch)]
        embeddings = torch.cat([part[0] for part in parts]).numpy()
        return embeddings, self.split(torch.cat([part[1] for part in parts]))

    def read(self, images: np.ndarray) -> list[Reading]:
        """Read images.

        Args:
            images: (n, H, H, 3) uint8, square.

        Returns:
            One reading an image. A flat or noisy image is read as modality "none".

        Raises:
            BadInput: The array has another shape or type, or is empty.
        """
        embeddings, logits = self.forward(images)
        probabilities = {
            name: (values / self.temperatures.get(name, 1.0)).softmax(1).numpy()
            for name, values in logits.items()
        }
        readings = []
        for index, embedding in enumerate(embeddings):
            heads = {
                head.name: {
                    name: float(p)
                    for name, p in zip(head.classes, probabilities[head.name][index], strict=True)
                }
                for head in self.heads
            }
            modality = heads.pop(MODALITY)
            readings.append(
                Reading(max(modality, key=modality.__getitem__), modality, heads, embedding)
            )
        return readings


@lru_cache
def bundled_reader() -> Reader:
    """The bundled reader, loaded once a process."""
    return Reader.load()


def finding_odds(classes: dict[str, float], shows: list[str]) -> float:
    """Log-odds of the classes that show a finding against the head's other classes."""
    shown = min(max(sum(classes[name] for name in shows), 1e-4), 1 - 1e-4)
    return math.log(shown / (1 - shown))


def finding_probability(
    classes: dict[str, float], shows: list[str], intercept: float, slope: float
) -> float:
    """Probability of a finding as common as its nearest rival, from a head's classes and card."""
    return 1 / (1 + math.exp(-(intercept + slope * finding_odds(classes, shows))))


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value

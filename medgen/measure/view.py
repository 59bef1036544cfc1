"""Which projection an adult chest film is: postero-anterior or antero-posterior.

A small network on 64x64 films, trained by `medgen.measure.tabulate_views` on films whose view is
stated. Knows adults only; a child's film is not asked.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.measure.anatomy import grey_square

SIZE = 64
WEIGHTS = Path(__file__).parent / "weights" / "view"


def view_network() -> nn.Sequential:
    """(batch, 1, 64, 64) standardised films -> (batch, 1) logit of AP."""
    layers: list[nn.Module] = []
    width = 1
    for channels in (24, 48, 96):
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        width = channels
    layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(width, 1)
    )


def standardised(films: list[np.ndarray]) -> Tensor:
    """(n, 1, 64, 64) float32, each film with mean 0 and deviation 1, of (64, 64) grey films."""
    x = torch.from_numpy(np.stack(films)).float()[:, None]
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-3)


def save_view_network(network: nn.Module, folder: str | Path) -> None:
    """Write fp16 weights, whole or not at all."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    write_atomic(Path(folder) / "view.safetensors", save(tensors))


@lru_cache
def load_view_network(folder: str | Path = WEIGHTS) -> nn.Module:
    """Read a network written by `save_view_network`, once a process.

    Raises:
        BadInput: The folder has no readable weights.
    """
    network = view_network()
    try:
        weights = load_file(Path(folder) / "view.safetensors")
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"no view network in {folder} ({reason}): train one with medgen.measure.tabulate_views"
        ) from error
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def ap_probability(image: np.ndarray) -> float:
    """Probability (0-1) that an adult film is AP rather than PA, of (H, H, 3) uint8."""
    logit = load_view_network()(standardised([grey_square(image, SIZE)]))
    return float(logit.sigmoid()[0, 0])

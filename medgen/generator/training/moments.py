"""Kept latents of an `AutoencoderKL`: mean and log variance of each picture, drawn from anew.

Keyed by the autoencoder's weights and the pictures, and mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medgen.generator.checkpoints import writing
from medgen.generator.training.latents import CHUNK, fill, to_model
from medgen.generator.training.pictures import Pictures


class KeptMoments:
    """An array (n, 2 x channels, h, w) float16: means, then log variances."""

    def __init__(self, path: Path) -> None:
        self.moments = np.load(path, mmap_mode="r")

    def draw(self, numbers: Sequence[int], generator: torch.Generator) -> Tensor:
        """Latents (n, channels, h, w) float32 of the autoencoder's distribution, not scaled."""
        chosen = torch.from_numpy(self.moments[list(numbers)].astype(np.float32))
        mean, log_variance = chosen.chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator)
        return mean + (0.5 * log_variance).exp() * noise


def keep_moments(
    cache: Path, vae: Any, weights: str, pictures: Pictures, count: int
) -> KeptMoments:
    """The moments of pictures, encoding them first where they are not kept.

    Args:
        cache: Folder of such files.
        vae: An `AutoencoderKL`.
        weights: Hash of its weights.
        pictures: Of `count` rows.
        count: How many rows, at least one.

    Raises:
        BadInput: A picture cannot be read.
        MedgenError: The disk is full.
    """
    facts = json.dumps([weights, pictures.identity(), count])
    path = cache / f"moments-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.npy"

    @torch.inference_mode()
    def moments(start: int) -> np.ndarray:
        images = to_model(pictures.read(range(start, min(count, start + CHUNK))))
        distribution = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
        both = torch.cat([distribution.mean, distribution.logvar], dim=1)
        return both.half().cpu().numpy()

    if not path.exists():
        temporary = path.with_name(f".{path.name}.new")
        cache.mkdir(parents=True, exist_ok=True)
        with writing(path):
            try:
                fill(temporary, moments, count)
                shutil.move(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
    return KeptMoments(path)

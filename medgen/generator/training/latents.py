"""Cached latents of the training pictures, keyed by the autoencoder and the rows they stand for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medgen.errors import BadInput
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.checkpoints import writing


class Latents(NamedTuple):
    """Latents as float16 arrays, and the standardisation that training uses.

    `training` (copies, n, channels, h, w), `held_out` (m, channels, h, w); `mean` and `std`
    (channels, 1, 1) of the first copy.
    """

    training: np.ndarray
    held_out: np.ndarray
    mean: Tensor
    std: Tensor


@torch.inference_mode()
def encode_latents(
    model: CompactAutoencoder, images: np.ndarray, indices: Sequence[int], seed: int | None
) -> np.ndarray:
    """Latents (n, 16, H/16, W/16) float16 of images; with a seed, slightly shifted and zoomed."""
    output = []
    generator = torch.Generator().manual_seed(seed or 0)
    for start in range(0, len(indices), 32):
        pixels = torch.from_numpy(images[list(indices[start : start + 32])]).permute(0, 3, 1, 2)
        batch = pixels.float() / 127.5 - 1
        if seed is not None:
            noise = torch.rand(len(batch), 3, generator=generator) * 2 - 1
            theta = torch.zeros(len(batch), 2, 3)
            theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.05 * noise[:, 0]
            theta[:, :, 2] = 0.05 * noise[:, 1:]
            grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
            # Shifted by one, so that what comes in from outside the picture is black.
            batch = F.grid_sample(batch + 1, grid, align_corners=False) - 1
        output.append(model.encode(batch).half().numpy())
    side = images.shape[1] // 16
    return np.concatenate(output) if output else np.zeros((0, 16, side, side), np.float16)


def cached_latents(
    folder: Path,
    autoencoder: str | Path,
    images: Path,
    training: Sequence[int],
    held_out: Sequence[int],
    copies: int,
) -> Latents:
    """Read the latents of picture rows from the cache, encoding them when they are not there.

    Args:
        folder: Where caches lie, one file for each combination of what follows.
        autoencoder: Folder of a `CompactAutoencoder`.
        images: (n, H, H, 3) uint8 .npy.
        training: Rows of the training pictures.
        held_out: Rows of the validation pictures.
        copies: Shifted and zoomed copies of each training picture, beside itself.

    Raises:
        BadInput: The images are no such array, or a row lies outside of it.
    """
    try:
        pixels = np.load(images, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read the images {images}: {error}") from error
    last = max([*training, *held_out])
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or len(pixels) <= last:
        raise BadInput(
            f"{images} holds {pixels.dtype} {pixels.shape}: needed are uint8 pictures "
            f"(n, H, H, 3) with a row for every row of the table ({last + 1})"
        )
    path = folder / f"latents-{_key(Path(autoencoder), images, training, held_out, copies)}.npz"
    if not path.exists():
        model = CompactAutoencoder.from_pretrained(autoencoder, use_safetensors=True).eval()
        arrays = {
            f"train{n}": encode_latents(model.float(), pixels, training, n or None)
            for n in range(copies + 1)
        }
        arrays["held_out"] = encode_latents(model, pixels, held_out, None)
        temporary = path.with_name(f".{path.name}")
        folder.mkdir(parents=True, exist_ok=True)
        with writing(path):
            try:
                np.savez(temporary, allow_pickle=False, **arrays)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    arrays = dict(np.load(path))
    stacked = np.stack([arrays[f"train{n}"] for n in range(copies + 1)])
    flat = torch.from_numpy(stacked[0].astype(np.float32))
    mean, std = flat.mean((0, 2, 3), keepdim=True), flat.std((0, 2, 3), keepdim=True)
    return Latents(stacked, arrays["held_out"], mean[0], std[0])


def _key(
    autoencoder: Path,
    images: Path,
    training: Sequence[int],
    held_out: Sequence[int],
    copies: int,
) -> str:
    digest = hashlib.sha256()
    for path in sorted(autoencoder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    file = images.stat()
    facts = [list(training), list(held_out), copies, file.st_size, file.st_mtime_ns]
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]

"""Latents of the training pictures: encoded once and kept on disk, or anew at each draw.

What is kept is keyed by the autoencoder's weights and the pictures, and mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.checkpoints import writing_folder
from medgen.generator.training.pictures import Pictures

CHUNK = 32
# Pictures that give the mean and deviation of latents which are not kept.
MEASURED = 2048

Flags = Sequence[bool] | np.ndarray


class KeptLatents:
    """Arrays in a folder: copy 0 of each picture as it is, further ones shifted and zoomed.

    Attributes:
        mean: (channels, 1, 1) of copy 0.
        std: Likewise.
    """

    def __init__(self, folder: Path, copies: int) -> None:
        self.arrays = [np.load(folder / f"copy{n}.npy", mmap_mode="r") for n in range(copies + 1)]
        known = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
        self.mean, self.std = (torch.tensor(known[key]).view(-1, 1, 1) for key in ("mean", "std"))

    def read(self, numbers: Sequence[int], generator: np.random.Generator | None) -> Tensor:
        """Latents (n, channels, h, w) float32; a random copy of each where a generator is given."""
        if generator is None:
            versions = np.zeros(len(numbers), np.int64)
        else:
            versions = generator.integers(0, len(self.arrays), len(numbers))
        chosen = [self.arrays[v][n] for v, n in zip(versions, numbers, strict=True)]
        return torch.from_numpy(np.stack(chosen).astype(np.float32))


class FreshLatents:
    """Encodes pictures when they are drawn, augmented anew each time.

    Attributes:
        mean: (channels, 1, 1) over evenly spaced pictures.
        std: Likewise.
    """

    def __init__(
        self, model: CompactAutoencoder, pictures: Pictures, count: int, flips: Flags
    ) -> None:
        self.model, self.pictures, self.flips = model, pictures, flips
        numbers = np.linspace(0, count - 1, min(count, MEASURED)).astype(int).tolist()
        self.mean, self.std = statistics(
            self.read(numbers[start : start + CHUNK], None).numpy()
            for start in range(0, len(numbers), CHUNK)
        )

    def read(self, numbers: Sequence[int], generator: np.random.Generator | None) -> Tensor:
        """Latents (n, channels, h, w) float32; augmented where a generator is given."""
        images = to_model(self.pictures.read(numbers))
        if generator is not None:
            seeded = torch.Generator().manual_seed(int(generator.integers(2**62)))
            images = augmented(images, seeded, [self.flips[int(n)] for n in numbers])
        return encode(self.model, images).float().cpu()


def to_model(pixels: np.ndarray) -> Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def encode(model: CompactAutoencoder, images: Tensor) -> Tensor:
    """Latents of images in [-1, 1], where the model is."""
    return model.encode(images.to(model.device))


def augmented(images: Tensor, generator: torch.Generator, flips: Sequence[bool]) -> Tensor:
    """Images shifted and zoomed by up to a twentieth; half of those that may be are mirrored.

    Args:
        images: (n, 3, H, W) in [-1, 1].
        generator: Draws shifts, zooms and mirrors.
        flips: Whether each image may be mirrored: nothing in it or in its text has a side.
    """
    noise = torch.rand(len(images), 3, generator=generator) * 2 - 1
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.05 * noise[:, 0]
    theta[:, :, 2] = 0.05 * noise[:, 1:]
    if any(flips):
        mirrored = (torch.rand(len(images), generator=generator) < 0.5) & torch.tensor(list(flips))
        theta[:, 0, 0] = torch.where(mirrored, -theta[:, 0, 0], theta[:, 0, 0])
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Shifted by one, so that what comes in from outside the picture is black.
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def statistics(chunks: Iterator[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (channels, 1, 1), over chunks (n, channels, h, w)."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for chunk in chunks:
        values = chunk.astype(np.float64)
        count += values.size // values.shape[1]
        total = total + values.sum((0, 2, 3))
        squares = squares + np.square(values).sum((0, 2, 3))
    mean = total / count
    deviation = np.sqrt((squares - count * mean**2) / max(1, count - 1))
    return tuple(torch.from_numpy(v.astype(np.float32)).view(-1, 1, 1) for v in (mean, deviation))  # type: ignore[return-value]


def keep_latents(
    cache: Path,
    model: CompactAutoencoder,
    pictures: Pictures,
    count: int,
    copies: int,
    flips: Flags,
    weights: str,
) -> KeptLatents:
    """The kept latents of pictures, encoding them first where they are not there.

    Args:
        cache: Folder of such folders.
        model: The autoencoder.
        pictures: Of `count` rows.
        count: How many rows.
        copies: Shifted and zoomed copies of each picture, beside itself.
        flips: Which pictures may be mirrored in them.
        weights: Hash of the autoencoder's weights.

    Raises:
        BadInput: A picture cannot be read.
        MedgenError: The disk is full.
    """
    facts = [weights, pictures.identity(), count, copies]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(np.fromiter(flips, bool, count).tobytes())
    folder = cache / f"latents-{digest.hexdigest()[:16]}"
    if not folder.exists():
        with writing_folder(folder) as new:
            for n in range(copies + 1):
                _encode_all(new / f"copy{n}.npy", model, pictures, count, n, flips)
            first = np.load(new / "copy0.npy", mmap_mode="r")
            mean, std = statistics(first[start : start + 4096] for start in range(0, count, 4096))
            values = {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
            write_atomic(new / "statistics.json", json.dumps(values))
    return KeptLatents(folder, copies)


def _encode_all(
    path: Path,
    model: CompactAutoencoder,
    pictures: Pictures,
    count: int,
    copy: int,
    flips: Flags,
) -> None:
    generator = torch.Generator().manual_seed(copy)

    def latents(start: int) -> np.ndarray:
        numbers = range(start, min(count, start + CHUNK))
        images = to_model(pictures.read(numbers))
        if copy:
            images = augmented(images, generator, [flips[n] for n in numbers])
        return encode(model, images).half().cpu().numpy()

    fill(path, latents, count)


def fill(path: Path, latents: Callable[[int], np.ndarray], count: int) -> None:
    """Write (count, ...) float16 .npy by chunks, the one from each `start`, never all in memory."""
    chunk = latents(0)
    header = {"descr": "<f2", "fortran_order": False, "shape": (count, *chunk.shape[1:])}
    # Plain writes: a memory map would end the process where the disk is full.
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(chunk.tobytes())
        for start in range(CHUNK, count, CHUNK):
            stream.write(latents(start).tobytes())


def hash_weights(folder: Path) -> str:
    """SHA-256 over the safetensors of an autoencoder's folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

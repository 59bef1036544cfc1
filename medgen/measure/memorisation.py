"""Memorisation: is a drawn image a near-copy of a training image?

A descriptor of coarse pixel structure (16x16 grey, contrast removed, decorrelated by PCA) is
searched among those of all training images of the modality with FAISS; distances are calibrated
on real held-out images. It finds copies that were shifted, scaled, re-lit, blurred or compressed
a little. It does not find a copied detail in an otherwise new image. What ships is the index of
descriptors, from which no image can be restored.
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.records import NearestTraining

WEIGHTS = Path(__file__).parent / "weights" / "memorisation"
SIDE = 128
CELLS = 16


def reduced(images: np.ndarray) -> np.ndarray:
    """Grey images at the resolution of the index.

    Args:
        images: (n, H, H, 3) uint8, square.

    Returns:
        (n, 128, 128) float32 grey values 0-255.
    """
    size = images.shape[1]
    if size % SIDE:
        resized = [Image.fromarray(i).resize((SIDE, SIDE), Image.Resampling.BOX) for i in images]
        return np.stack([np.asarray(i, dtype=np.float32).mean(axis=2) for i in resized])
    step = size // SIDE
    grey = images.astype(np.float32).mean(axis=3)
    return grey.reshape(-1, SIDE, step, SIDE, step).mean(axis=(2, 4))


def coarse(grey: np.ndarray) -> np.ndarray:
    """Cell means without brightness and contrast.

    Args:
        grey: (n, 128, 128) float32.

    Returns:
        (n, 256) float32, each row with mean 0 and length 1 (length 0 for a flat image).
    """
    step = SIDE // CELLS
    means = grey.reshape(len(grey), CELLS, step, CELLS, step).mean(axis=(2, 4))
    flat = means.reshape(len(grey), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-3))


def variants(grey: np.ndarray) -> np.ndarray:
    """An image moved by up to 4 pixels each way in steps of 2, and scaled up and down by 5 %.

    Args:
        grey: (128, 128) float32.

    Returns:
        (27, 128, 128) float32; edges are repeated.
    """
    padded = np.pad(grey, 4, mode="edge")
    offsets = range(0, 9, 2)
    moved = [padded[row : row + SIDE, col : col + SIDE] for row in offsets for col in offsets]
    centre = np.arange(SIDE) + 0.5 - SIDE / 2
    for scale in (0.95, 1.05):
        index = np.clip(np.floor(centre * scale + SIDE / 2), 0, SIDE - 1).astype(int)
        moved.append(grey[index][:, index])
    return np.stack(moved)


class MemorisationIndex:
    """Descriptors of the training images by modality, with their calibration."""

    def __init__(
        self,
        projection: np.ndarray,
        mean: np.ndarray,
        vectors: dict[str, np.ndarray],
        names: dict[str, list[str]],
        calibration: dict[str, dict],
    ) -> None:
        """Keep the descriptors searchable.

        Args:
            projection: (256, d) float32, from coarse pixels to descriptor.
            mean: (256,) float32.
            vectors: By modality, (n, d) unit vectors of the training images.
            names: By modality, the training images' names, n each.
            calibration: By modality, `threshold`, `distances` (real held-out, ascending), ...
        """
        self.projection, self.mean = projection, mean
        self.vectors, self.names, self.calibration = vectors, names, calibration
        self._indices = {}
        for modality, rows in vectors.items():
            index = faiss.IndexFlatIP(rows.shape[1])
            index.add(np.ascontiguousarray(rows, dtype=np.float32))
            self._indices[modality] = index

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> MemorisationIndex:
        """Read an index written by `medgen.measure.build_memorisation`.

        Raises:
            BadInput: The folder has no readable index or calibration.
        """
        folder = Path(folder)
        try:
            tensors = load_file(folder / "index.safetensors")
            card = yaml.safe_load((folder / "calibration.yaml").read_text(encoding="utf-8"))
            names = json.loads(zlib.decompress(tensors["names"].tobytes()))
            vectors = {
                name.removeprefix("vectors "): rows.astype(np.float32)
                for name, rows in tensors.items()
                if name.startswith("vectors ")
            }
            projection = tensors["projection"].astype(np.float32)
            mean = tensors["mean"].astype(np.float32)
            return cls(projection, mean, vectors, names, card["modalities"])
        except (OSError, KeyError, TypeError, ValueError, zlib.error, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"no memorisation index in {folder} ({reason}): build one with "
                "medgen.measure.build_memorisation"
            ) from error

    def save(self, folder: str | Path, card: dict) -> None:
        """Write the index (fp16) and its card with the calibration, each file atomically."""
        listed = zlib.compress(json.dumps(self.names).encode(), 9)
        tensors = {
            "projection": self.projection.astype(np.float16),
            "mean": self.mean.astype(np.float16),
            "names": np.frombuffer(listed, dtype=np.uint8),
            **{f"vectors {m}": rows.astype(np.float16) for m, rows in self.vectors.items()},
        }
        # safetensors writes memory as it lies, so a transposed array would come back scrambled.
        ordered = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        write_atomic(Path(folder) / "index.safetensors", save(ordered))
        document = {**card, "modalities": self.calibration}
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
        write_atomic(Path(folder) / "calibration.yaml", text)

    def descriptors(self, grey: np.ndarray) -> np.ndarray:
        """(n, d) float32 unit vectors of (n, 128, 128) grey images."""
        projected = (coarse(grey) - self.mean) @ self.projection
        length = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.ascontiguousarray(projected / np.maximum(length, 1e-6), dtype=np.float32)

    def nearest(self, image: np.ndarray, modality: str) -> tuple[float, str | None]:
        """Distance (0-2) to the nearest training image over small shifts, and its name.

        A modality without training images is infinitely far: (2.0, None).
        """
        if modality not in self._indices:
            return 2.0, None
        queries = self.descriptors(variants(reduced(image[None])[0]))
        similarity, rows = self._indices[modality].search(queries, 1)
        best = int(similarity[:, 0].argmax())
        distance = float(np.sqrt(max(0.0, 2.0 - 2.0 * float(similarity[best, 0]))))
        return distance, self.names[modality][int(rows[best, 0])]

    def percentile(self, distance: float, modality: str) -> float:
        """Share in percent of real held-out images that lie nearer than a distance."""
        known = self.calibration.get(modality)
        if known is None:
            return 100.0
        return float(100.0 * np.mean(np.array(known["distances"]) < distance))

    def too_close(self, nearest: NearestTraining, modality: str) -> bool:
        """Whether a distance is one of copies rather than of other patients."""
        known = self.calibration.get(modality)
        return known is not None and nearest.distance < known["threshold"]


@lru_cache
def bundled_index() -> MemorisationIndex:
    """The bundled index, loaded once a process."""
    return MemorisationIndex.load()


def nearest_training(images: np.ndarray, modalities: list[str]) -> list[NearestTraining]:
    """The nearest training image of each image.

    Args:
        images: (n, H, H, 3) uint8, square, at least 128 pixels a side.
        modalities: Each image's modality; only training images of it are compared.

    Returns:
        Distance (0-2), its percentile among real held-out images, and the training image's name.

    Raises:
        BadInput: The array has another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise BadInput(
            f"images must be uint8 of shape (n, H, H, 3), not {images.dtype} {images.shape}: "
            "load them with medgen.data.images.load_square"
        )
    if images.shape[1] != images.shape[2] or images.shape[1] < SIDE:
        raise BadInput(
            f"images are {images.shape[2]}x{images.shape[1]} pixels, not square or under {SIDE}: "
            "square them first (medgen.data.images.load_square)"
        )
    index = bundled_index()
    found = []
    for image, modality in zip(images, modalities, strict=True):
        distance, name = index.nearest(image, modality)
        found.append(
            NearestTraining(
                distance=round(distance, 4),
                percentile=round(index.percentile(distance, modality), 2),
                image=name,
            )
        )
    return found

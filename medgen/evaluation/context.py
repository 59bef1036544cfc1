"""What every suite is given: the tables, chance, progress, a folder, and features read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from medgen.evaluation.tables import ImageTable, Progress, silent


class Encoder(Protocol):
    """What turns images into features; `name` is written beside every figure it is behind."""

    name: str
    width: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (n, width) float32 of (n, H, H, 3) uint8 images."""
        ...


@dataclass
class Context:
    """One evaluation's inputs.

    `real` are images that nobody trained on, `synthetic` what is judged, `train` what the
    generator learned from (privacy and utility need it). `encoders` are the feature extractors,
    the first of them the headline. `out` is the report's folder; suites may put pictures there.
    """

    real: ImageTable
    synthetic: ImageTable
    train: ImageTable | None
    encoders: tuple[Encoder, ...]
    out: Path
    seed: int = 0
    repetitions: int = 200
    progress: Progress = silent
    _features: dict[tuple[str, Path], np.ndarray] = field(default_factory=dict, repr=False)

    def features(self, table: ImageTable, encoder: Encoder) -> np.ndarray:
        """(n, width) float32 features of a table's images, each read from disk once and kept."""
        missing = table.where(lambda row: (encoder.name, row.path) not in self._features)
        done = 0
        for batch in missing.batches():
            for vector in np.asarray(encoder(batch), dtype=np.float32):
                self._features[encoder.name, missing.rows[done].path] = vector
                done += 1
            self.progress(f"{encoder.name}: {table.name} images", done, len(missing))
        return np.stack([self._features[encoder.name, row.path] for row in table.rows])

    def chance(self, *purpose: str) -> np.random.Generator:
        """A source of chance that depends on the seed and on what it is for, not on order."""
        words = [int.from_bytes(word.encode()[:8].ljust(8, b"\0"), "big") for word in purpose]
        return np.random.default_rng([self.seed, *words])

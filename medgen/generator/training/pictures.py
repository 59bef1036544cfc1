"""Pictures of training rows: packed in one array, or decoded from their own files by workers.

Knows files and pixels; knows nothing of latents or captions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from medgen.data.images import Fit, load_square
from medgen.errors import BadInput
from medgen.generator.training.row_index import Row


class Pictures(Protocol):
    """Pictures by the number of their row in the rows at hand."""

    size: int

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """(n, size, size, 3) uint8.

        Raises:
            BadInput: Pictures that cannot be read: how many, and the first.
        """
        ...

    def identity(self) -> str:
        """Changes when a picture, its size or its fit changes."""
        ...


class PackedPictures:
    """Rows of an (n, H, H, 3) uint8 array in the order of the table."""

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        try:
            self.pixels = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read the images {path}: {error}") from error
        self.numbers = np.fromiter((int(row["index"]) for row in rows), np.int64, len(rows))
        last = int(self.numbers.max(initial=-1))
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) <= last:
            raise BadInput(
                f"{path} holds {self.pixels.dtype} {self.pixels.shape}: needed are uint8 pictures "
                f"(n, H, H, 3) with a row for every row of the table ({last + 1})"
            )
        self.path = path
        self.size: int = self.pixels.shape[1]

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """See `Pictures.read`."""
        return self.pixels[self.numbers[list(numbers)]]

    def identity(self) -> str:
        """See `Pictures.identity`."""
        file = self.path.stat()
        digest = hashlib.sha256(f"{file.st_size} {file.st_mtime_ns}".encode())
        digest.update(self.numbers.tobytes())
        return digest.hexdigest()


class PictureFiles:
    """PNG, JPEG or DICOM files at the rows' places, squared to one size."""

    def __init__(self, rows: Sequence[Row], size: int, fit: Fit, workers: int) -> None:
        self.rows, self.size, self.fit = rows, size, fit
        self.pool = ThreadPoolExecutor(max_workers=workers)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """See `Pictures.read`."""
        places = [self.rows[int(number)]["image"] for number in numbers]
        read = list(self.pool.map(self._read, places))
        failed = [entry for entry in read if isinstance(entry, BadInput)]
        if failed:
            raise BadInput(
                f"{failed[0]}; {len(failed)} of {len(read)} pictures here cannot be read: "
                "`medgen data check TABLE` lists all"
            )
        return np.stack([entry for entry in read if not isinstance(entry, BadInput)])

    def _read(self, place: str) -> np.ndarray | BadInput:
        try:
            return load_square(place, self.size, self.fit)
        except BadInput as error:
            return error

    def identity(self) -> str:
        """See `Pictures.identity`."""
        digest = hashlib.sha256(f"{self.size} {self.fit}".encode())
        for row in self.rows:
            file = Path(row["image"])
            facts = file.stat() if file.is_file() else None
            digest.update(f"{file} {facts and (facts.st_size, facts.st_mtime_ns)}".encode())
        return digest.hexdigest()

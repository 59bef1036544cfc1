"""Nearest neighbours among unit vectors on disk: exact for few, IVF for many, memory-mapped.

Vectors live in one half-precision file that grows row by row, so that a killed build goes on where
it stopped; the FAISS index beside it is made from the file. Knows vectors and row numbers only.
FAISS: Johnson et al., arXiv 1702.08734; the choice of lists follows its guidelines.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VECTORS, INDEX, STATE = "vectors.f16", "index.faiss", "index.json"
BLOCK = 65_536
TRAIN_PER_LIST = 40
TRAIN_ROUNDS = 10
SEED = 0
PROBE_SHARE = 0.06
Progress = Callable[[int, int], None]


class VectorFile:
    """Rows of unit vectors in half precision, appended or overwritten in place.

    Args:
        folder: Where the file lies.
        dimension: Numbers a row.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.path = folder / VECTORS
        self.dimension = dimension

    def __len__(self) -> int:
        try:
            return self.path.stat().st_size // (2 * self.dimension)
        except OSError:
            return 0

    def write(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Put (count, dimension) vectors at row numbers; on disk when this returns."""
        data = np.ascontiguousarray(vectors, dtype=np.float16)
        with self.path.open("r+b" if self.path.exists() else "w+b") as stream:
            starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
            for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
                stream.seek(int(rows[start]) * 2 * self.dimension)
                stream.write(data[start:end].tobytes())
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> np.ndarray:
        """All rows, memory-mapped: (count, dimension) float16."""
        count = len(self)
        if not count:
            return np.zeros((0, self.dimension), dtype=np.float16)
        return np.memmap(self.path, np.float16, "r", shape=(count, self.dimension))


def _faiss() -> Any:
    """FAISS, imported when first needed; its stubs lack the keyword arguments of its wrappers."""
    import faiss

    return faiss


def lists_for(count: int) -> int:
    """How many IVF lists for so many vectors: four times the square root, a power of two."""
    return 1 << round(math.log2(4 * math.sqrt(max(count, 1))))


def build_index(
    folder: Path, dimension: int, exact_up_to: int, progress: Progress | None = None
) -> None:
    """Make the index of a folder's vector file, whole or not at all.

    Args:
        folder: Holds the vector file.
        dimension: Numbers a row.
        exact_up_to: Up to so many vectors are compared one by one; beyond, in IVF lists.
        progress: Told rows done and rows in all.
    """
    faiss = _faiss()
    vectors = VectorFile(folder, dimension).read()
    count = len(vectors)
    kind = faiss.ScalarQuantizer.QT_fp16
    if count <= exact_up_to:
        index = faiss.IndexScalarQuantizer(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        lists = 0
    else:
        lists = lists_for(count)
        coarse = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFScalarQuantizer(
            coarse, dimension, lists, kind, faiss.METRIC_INNER_PRODUCT, False
        )
        index.cp.niter, index.cp.seed = TRAIN_ROUNDS, SEED
        sample = min(count, TRAIN_PER_LIST * lists)
        chosen = np.sort(np.random.default_rng(SEED).choice(count, sample, replace=False))
        index.train(np.asarray(vectors[chosen], dtype=np.float32))
    if not index.is_trained:
        index.train(np.asarray(vectors[:1], dtype=np.float32))
    for start in range(0, count, BLOCK):
        index.add(np.asarray(vectors[start : start + BLOCK], dtype=np.float32))
        if progress:
            progress(min(start + BLOCK, count), count)
    temporary = folder / f".{INDEX}.tmp"
    faiss.write_index(index, str(temporary))
    temporary.replace(folder / INDEX)
    state = folder / f".{STATE}.tmp"
    state.write_text(json.dumps({"count": count, "lists": lists, "dimension": dimension}))
    state.replace(folder / STATE)


def index_state(folder: Path) -> dict[str, int]:
    """`count`, `lists` (0: exact) and `dimension` of a folder's index; empty when there is none."""
    try:
        return json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return {}


class Nearest:
    """A memory-mapped index of one folder, for searching."""

    def __init__(self, folder: Path) -> None:
        faiss = _faiss()
        state = index_state(folder)
        flags = faiss.IO_FLAG_MMAP if state.get("lists") else 0
        self._index: Any = faiss.read_index(str(folder / INDEX), flags | faiss.IO_FLAG_READ_ONLY)
        self.count, self.lists = state.get("count", 0), state.get("lists", 0)

    def search(
        self, question: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows nearest to a unit vector.

        Args:
            question: (dimension,) float32.
            k: How many at most.
            allowed: (count,) bool, the rows that may be found; all when not given.

        Returns:
            Row numbers and cosine similarities, best first.
        """
        faiss = _faiss()
        share = 1.0 if allowed is None else float(allowed[: self.count].mean())
        if k < 1 or not self.count or share <= 0:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        chosen: Any = None
        bits = selector = None
        if allowed is not None:
            bits = np.packbits(allowed[: self.count], bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        if self.lists == 0:
            if selector is not None:
                chosen = faiss.SearchParameters(sel=selector)
            scores, found = self._index.search(question[None], min(k, self.count), params=chosen)
        else:
            wanted = min(k, self.count if allowed is None else int(allowed.sum()))
            probes = max(8, int(self.lists * PROBE_SHARE))
            while True:  # what a filter leaves may lie in far lists
                chosen = faiss.SearchParametersIVF(sel=selector, nprobe=min(probes, self.lists))
                scores, found = self._index.search(question[None], wanted, params=chosen)
                if probes >= self.lists or (found[0] >= 0).sum() >= wanted:
                    break
                probes *= 4
        kept = found[0] >= 0
        return found[0][kept], scores[0][kept]

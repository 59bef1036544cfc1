"""How near is an image to the nearest training image: two spaces, one exact search (FAISS).

Pixel space: grey cells, 16 a side, less their surroundings' mean, as vectors of length 1; an image
is tried at 24 small shifts and two scales. Feature space: an encoder's features less the training
images' mean, as vectors of length 1. Distances lie in 0-2. Finds copies, also re-lit, blurred,
moved or compressed ones; not a copied detail in an otherwise new image. Knows no table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import faiss
import numpy as np
from scipy import ndimage

from medgen.measure.memorisation import reduced

CELLS = 16
SIDE = 64
# Shifts of up to two pixels each way at 64 pixels a side: 3 % of the picture.
REACH = 2
SCALES = (0.95, 1.05)
CHUNK = 512

Views = Callable[[np.ndarray], Sequence[np.ndarray]]


def coarse_grey(images: np.ndarray) -> np.ndarray:
    """(n, 64, 64) float16 grey values 0-255 of (n, H, H, 3) uint8 images."""
    grey = reduced(images)
    step = grey.shape[1] // SIDE
    means = grey.reshape(-1, SIDE, step, SIDE, step).mean(axis=(2, 4))
    return np.asarray(means, dtype=np.float16)


def structure(grey: np.ndarray) -> np.ndarray:
    """Coarse structure without light and contrast.

    Args:
        grey: (n, 64, 64) grey values.

    Returns:
        (n, 256) float32 vectors of length 1 (0 for a flat image).
    """
    step = SIDE // CELLS
    cells = grey.astype(np.float32).reshape(-1, CELLS, step, CELLS, step).mean(axis=(2, 4))
    # Without its surroundings a cell tells this image from others of the same anatomy.
    spread = CELLS / 8
    cells = cells - ndimage.gaussian_filter(cells, (0, spread, spread), mode="nearest")
    return _unit(cells.reshape(len(cells), -1))


def moved(grey: np.ndarray) -> list[np.ndarray]:
    """(n, 64, 64) greys as they are, at 24 small shifts and at `SCALES`; edges repeat."""
    grey = grey.astype(np.float32)
    padded = np.pad(grey, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="edge")
    offsets = sorted(
        ((row, col) for row in range(2 * REACH + 1) for col in range(2 * REACH + 1)),
        key=lambda at: abs(at[0] - REACH) + abs(at[1] - REACH),
    )
    shifted = [padded[:, row : row + SIDE, col : col + SIDE] for row, col in offsets]
    centre = (SIDE - 1) / 2
    scaled = [
        ndimage.affine_transform(
            grey, (1, scale, scale), (0, centre - scale * centre, centre - scale * centre),
            order=1, mode="nearest",
        )
        for scale in SCALES
    ]  # fmt: skip
    return shifted + scaled


def moved_structure(grey: np.ndarray) -> list[np.ndarray]:
    """`structure` of (n, 64, 64) greys at all that `moved` tries, the unmoved first."""
    return [structure(one) for one in moved(grey)]


def centred(features: np.ndarray, mean: np.ndarray) -> list[np.ndarray]:
    """One view: (n, width) features less a mean, as float32 vectors of length 1."""
    return [_unit(features - mean)]


class Neighbours:
    """Training images of one modality in one space, searched exactly.

    `views` turns images as they are kept (greys or features) into vectors, the unshifted first;
    an image's distance is that of its nearest view.
    """

    def __init__(self, kept: np.ndarray, groups: np.ndarray, views: Views) -> None:
        self.groups = groups
        self._kept = kept
        self._views = views
        vectors = np.concatenate(
            [views(kept[start : start + CHUNK])[0] for start in range(0, len(kept), CHUNK)]
        )
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def nearest(
        self, kept: np.ndarray, groups: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest training image of each image.

        Args:
            kept: (n, ...) images in the form of this space.
            groups: (n,) When given, training images of an image's own group do not count.

        Returns:
            (n,) distances 0-2, infinite where no training image counts; (n,) their positions.
        """
        found = [
            self._search(
                kept[start : start + CHUNK],
                None if groups is None else groups[start : start + CHUNK],
            )
            for start in range(0, len(kept), CHUNK)
        ]
        return (
            np.concatenate([distances for distances, _ in found]),
            np.concatenate([rows for _, rows in found]),
        )

    def own_distance(self, rows: np.ndarray) -> np.ndarray:
        """(n,) distance of training images to the nearest one of another group."""
        return self.nearest(self._kept[rows], self.groups[rows])[0]

    def _search(self, kept: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        depth = 1
        if groups is not None:
            own = self.groups[np.isin(self.groups, groups)]
            depth += int(np.unique(own, return_counts=True)[1].max()) if len(own) else 0
            depth = min(depth, self._index.ntotal)
        best = np.full(len(kept), -np.inf, dtype=np.float32)
        where = np.zeros(len(kept), dtype=np.int64)
        for view in self._views(kept):
            likeness, rows = self._index.search(view, depth)
            if groups is not None:
                own_group = self.groups[rows] == groups[:, None]
                likeness = np.where(own_group, -np.inf, likeness)
            first = likeness.argmax(axis=1)
            each = np.arange(len(kept))
            better = likeness[each, first] > best
            best[better] = likeness[each, first][better]
            where[better] = rows[each, first][better]
        distance = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * best.astype(np.float64)))
        return distance, where


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(length, 1e-6), dtype=np.float32)

"""Builds and calibrates the memorisation index from the image-text table.

Run as `python -m medgen.measure.build_memorisation TABLE IMAGES.npy`. The threshold of a modality
catches distorted copies of training images (shift, scale, light, blur, noise, JPEG) as far as
validation images (their own copies left out of the index) allow: it is the greater of their first
percentile and the copies' 95th, but flags at most `MOST_FLAGGED` of them. Figures on split=test.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medgen.measure.memorisation import WEIGHTS, MemorisationIndex, coarse, reduced
from medgen.measure.train_reader import fold, read_table

DIMENSIONS = 64
WHITENING = 0.5
COPIES = 40
MOST_FLAGGED = 0.05
DISTORTIONS = ("jpeg", "brighter", "gamma", "shifted", "scaled", "blurred", "noisy")


def distorted(image: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
    """A near-copy of a (H, H, 3) uint8 image, as memorised training images come out.

    Args:
        image: (H, H, 3) uint8.
        kind: One of `DISTORTIONS`.
        seed: Of the noise.

    Returns:
        (H, H, 3) uint8.
    """
    size = image.shape[0]
    values: np.ndarray = image.astype(np.float32)
    if kind == "jpeg":
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=40)
        return np.asarray(Image.open(stream).convert("RGB"))
    if kind == "brighter":
        values = values * 1.12 + 8
    elif kind == "gamma":
        values = 255 * (values / 255) ** 0.75
    elif kind == "shifted":
        values = ndimage.shift(values, (size * 0.02, -size * 0.015, 0), order=1, mode="nearest")
    elif kind == "scaled":
        edge = round(size * 0.025)
        crop = Image.fromarray(image).crop((edge, edge, size - edge, size - edge))
        return np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
    elif kind == "blurred":
        values = ndimage.gaussian_filter(values, (size * 0.01, size * 0.01, 0))
    elif kind == "noisy":
        grain = np.random.default_rng(seed).normal(0, 8, image.shape[:2])
        values = values + grain[..., None]
    else:
        raise ValueError(f"unknown distortion {kind}")
    return values.clip(0, 255).astype(np.uint8)


def projection(coarse_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PCA with partial whitening of (n, p) rows: (p, DIMENSIONS) matrix and (p,) mean."""
    mean = coarse_rows.mean(axis=0)
    centred = coarse_rows - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(values)[::-1][:DIMENSIONS]
    scale = np.maximum(values[order], 1e-8) ** (-WHITENING / 2)
    return (vectors[:, order] * scale).astype(np.float32), mean.astype(np.float32)


def build(table: str, images: str, out: Path = WEIGHTS) -> None:
    """Write `index.safetensors` and `calibration.yaml`, and print the figures."""
    rows = read_table(table)
    packed = np.load(images, mmap_mode="r")
    folds = np.array([fold(row) for row in rows])
    modality = np.array([row["modal"] for row in rows])
    kept = folds != "test"
    low = np.concatenate([coarse(reduced(packed[i : i + 512])) for i in range(0, len(rows), 512)])
    matrix, mean = projection(low[kept])
    vectors = (low - mean) @ matrix
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    modalities = sorted({row["modal"] for row in rows})

    def index_of(wanted: np.ndarray) -> MemorisationIndex:
        part = {m: np.flatnonzero(wanted & (modality == m)) for m in modalities}
        return MemorisationIndex(
            matrix,
            mean,
            {
                m: vectors[chosen].astype(np.float16).astype(np.float32)
                for m, chosen in part.items()
            },
            {m: [_name(rows[i]) for i in chosen] for m, chosen in part.items()},
            {},
        )

    training, whole = index_of(folds == "train"), index_of(kept)
    draws = np.random.default_rng(7)
    document: dict = {}
    for name in modalities:
        inside = modality == name
        validation = _distances(training, packed, np.flatnonzero(inside & (folds == "val")), name)
        held_out = _distances(whole, packed, np.flatnonzero(inside & (folds == "test")), name)
        sources = np.flatnonzero(inside & (folds == "train"))
        half = draws.permutation(sources)[: 2 * COPIES]
        tuning = _copies(training, packed, half[:COPIES], name)
        final = _copies(whole, packed, half[COPIES:], name)
        every = np.concatenate(list(tuning.values()))
        wanted = max(float(np.percentile(validation, 1)), float(np.percentile(every, 95)))
        threshold = min(wanted, float(np.percentile(validation, 100 * MOST_FLAGGED)))
        flagged = int((held_out < threshold).sum())
        document[name] = {
            "threshold": round(threshold, 4),
            "accuracy": f"flags {flagged} of {len(held_out)} real held-out images and "
            f"{np.mean(np.concatenate(list(final.values())) < threshold):.1%} of distorted copies",
            "held_out_flagged": f"{flagged} of {len(held_out)}",
            "copies_flagged": {
                kind: f"{int((d < threshold).sum())} of {len(d)}" for kind, d in final.items()
            },
            "median_held_out": round(float(np.median(held_out)), 4),
            "distances": [
                round(float(d), 4) for d in np.percentile(held_out, np.linspace(0, 100, 101))
            ],
        }
        print(name, {k: v for k, v in document[name].items() if k != "distances"}, flush=True)
    whole.calibration = document
    card = {
        "source": "python -m medgen.measure.build_memorisation on the image table, images at "
        f"{packed.shape[1]} pixels, seed 7",
        "dimensions": DIMENSIONS,
        "training_images": int(kept.sum()),
    }
    whole.save(out, card)


def _name(row: dict[str, str]) -> str:
    return f"{row['source']}/{Path(row['path']).name}"


def _distances(
    index: MemorisationIndex, packed: np.ndarray, rows: np.ndarray, modality: str
) -> np.ndarray:
    return np.array([index.nearest(packed[i], modality)[0] for i in rows])


def _copies(
    index: MemorisationIndex, packed: np.ndarray, rows: np.ndarray, modality: str
) -> dict[str, np.ndarray]:
    return {
        kind: np.array(
            [index.nearest(distorted(packed[i], kind, int(i)), modality)[0] for i in rows]
        )
        for kind in DISTORTIONS
    }


if __name__ == "__main__":
    build(sys.argv[1], sys.argv[2])

"""Real adult films with their hearts widened: large hearts between clear lungs, for training.

Among public films with clear lungs few hearts are large, and a generator that has seen large hearts
in sick lungs alone draws both together. Here normal films of the training fold are warped: the
heart is scaled sideways about its middle, what lies between it and the chest wall is squeezed, and
ribs and wall stay. What a film shows afterwards is measured again, by the verifier's segmenter.

Run as `python -m medgen.generator.widen_hearts DATA PIXELS JOINED OUT`: DATA/manifest.csv and its
pictures (n, 256, 256, 3) uint8, a table with the column `view` by `path`; writes manifest.csv,
pixels.npy (the table with the widened films behind it) and widened.csv (their measurements). The
ratios to warp to are drawn with seed 0.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from medgen.data.images import write_atomic
from medgen.measure.chest import bundled_segmenter
from medgen.measure.chest_geometry import calipers, clean
from medgen.measure.train_reader import fold, read_table

SOURCE, LABEL = "radiography_adult", "normal"
WANTED = (0.54, 0.72)
"""Ratios to warp to; less is measured afterwards, since the warp fades towards apex and base."""
KEPT = (0.505, 0.70)
"""Measured ratios of films that are kept: from where captions.yaml calls a heart enlarged."""
MOST = 1.8
"""Largest factor of a heart's width."""
NEAREST = 0.97
"""Share of the way to the lung's outer edge that a heart may reach."""
LEVEL, ABOVE, BELOW = 0.68, 0.7, 1.27
"""Where in the heart's height the warp is whole, and its fading, in half heights."""
_BATCH = 64


def widened(film: np.ndarray, masks: np.ndarray, ratio: float) -> np.ndarray | None:
    """The film with a heart as wide as asked.

    Args:
        film: (H, H, 3) uint8.
        masks: (3, h, h) probabilities of `medgen.measure.segmentation.STRUCTURES`.
        ratio: Cardiothoracic ratio at the heart's widest level.

    Returns:
        In the shape of `film`; None where nothing can be measured, the heart is as wide already,
        or it would have to grow more than `MOST` or into the chest wall.
    """
    cleaned = clean(masks)
    measured = calipers(masks, cleaned)
    if measured is None:
        return None
    side = film.shape[0]
    scale = side / masks.shape[1]
    left, right = (edge * scale for edge in measured.heart)
    inner, outer = (edge * scale for edge in measured.thorax)
    grow = ratio / ((right - left) / (outer - inner))
    if not 1 < grow <= MOST:
        return None
    rows = np.flatnonzero(cleaned[2].any(axis=1)) * scale
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    above = (rows[0] + LEVEL * (rows[-1] - rows[0]) - y) / (0.5 * (rows[-1] - rows[0]))
    fading = np.where(above > 0, above / ABOVE, above / BELOW)
    factor = 1 + (grow - 1) * np.exp(-0.5 * fading**2)
    middle, columns = (left + right) / 2, x.copy()
    for sign, border, wall in ((-1, left, inner), (1, right, outer)):
        reach, room = abs(border - middle), abs(wall - middle)
        away, moved = sign * (x - middle), abs(border - middle) * factor
        if moved.max() > NEAREST * room:
            return None
        squeezed = reach + (away - moved) * (room - reach) / (room - moved)
        source = np.where(away <= moved, away / factor, squeezed)
        columns = np.where((away > 0) & (away < room), middle + sign * source, columns)
    parts = [ndimage.map_coordinates(film[..., i], (y, columns), order=1) for i in range(3)]
    return np.stack(parts, axis=-1)


def main(data: str, pixels: str, views: str, out: str) -> None:
    """Widen what can be widened, and write the three files."""
    rows, packed = read_table(Path(data) / "manifest.csv"), np.load(pixels, mmap_mode="r")
    seen = {row["path"]: row["view"] for row in read_table(Path(views))}
    chosen = [
        place
        for place, row in enumerate(rows)
        if (row["source"], row["label"]) == (SOURCE, LABEL) and fold(row) == "train"
    ]
    chance, segmenter = np.random.default_rng(0), bundled_segmenter()
    table: list[tuple[str, ...]] = [
        ("path", "cardiothoracic_ratio", "opacity_right", "opacity_left", "view")
    ]
    films, added = [], []
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        originals = np.stack([packed[place] for place in part])
        found = [
            (place, film)
            for place, original, masks in zip(
                part, originals, segmenter.segment(originals), strict=True
            )
            if (film := widened(original, masks, chance.uniform(*WANTED))) is not None
        ]
        if not found:
            continue
        batch = np.stack([film for _, film in found])
        for (place, film), one in zip(found, segmenter.measure(batch), strict=True):
            if one.ratio is None or not KEPT[0] <= one.ratio <= KEPT[1]:
                continue
            path = f"widened/{rows[place]['path']}"
            numbers = (one.ratio, one.opacity_right, one.opacity_left)
            view = seen.get(rows[place]["path"], "")
            table.append((path, *(f"{number:.4f}" for number in numbers), view))
            added.append({**rows[place], "path": path})
            films.append(film)
        print(f"{start + len(part)} of {len(chosen)} films, {len(films)} widened", flush=True)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    joined = np.lib.format.open_memmap(
        folder / "pixels.npy", "w+", np.uint8, (len(packed) + len(films), *packed.shape[1:])
    )
    joined[: len(packed)] = packed
    joined[len(packed) :] = np.stack(films)
    joined.flush()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, *added])
    write_atomic(folder / "manifest.csv", text.getvalue())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    write_atomic(folder / "widened.csv", text.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Shortcut audit: does a finding classifier still tell the finding when it cannot see the lesion?

Labels and sources are confounded, so a classifier may read the scanner, the crop or the patient's
position. Readers of the bundled one's kind are trained thrice within the same sources and folds: on
whole images, with the centre hidden (all of the organ but its rim), and on the bare silhouette.
Where the accuracy survives the hiding, the finding's presence is not what is read. After Zech et
al. 2018 (PLoS Med 15:e1002683) and DeGrave et al. 2021 (Nat Mach Intell 3:610).

Run as `python -m medgen.measure.shortcut_audit configs/shortcut_audit.yaml`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy import ndimage

from medgen.data.images import write_atomic
from medgen.measure.reader import Head, Reader, finding_odds, to_pixels
from medgen.measure.reader_card import finding_heads
from medgen.measure.statistics import auc, auc_interval
from medgen.measure.train_reader import IGNORED, fold, read_table, targets, train

# What is hidden, in fractions of the frame: (centre x, centre y, half width, half height), and
# whether the corners are kept (ellipse) or not (rectangle).
CENTRES: dict[str, tuple[float, float, float, float, bool]] = {
    "Brain MRI": (0.5, 0.5, 0.42, 0.42, True),
    "Chest CT": (0.5, 0.5, 0.42, 0.36, False),
    "Chest X-ray": (0.5, 0.49, 0.44, 0.41, False),
    "Fundus": (0.5, 0.5, 0.42, 0.42, True),
    "OCT": (0.5, 0.5, 0.5, 0.36, False),
}
SILHOUETTE_LEVEL = 18
"""Grey level that parts the body, or the fundus, from the empty frame."""


def hide_centre(image: np.ndarray, modality: str) -> np.ndarray:
    """The image with the same grey shape over the organ, whatever the image shows.

    Args:
        image: (S, S, 3) uint8.
        modality: Names the shape in `CENTRES`.
    """
    x, y, half_width, half_height, ellipse = CENTRES[modality]
    size = image.shape[0]
    rows, columns = np.mgrid[0:size, 0:size] / size + 0.5 / size
    across, along = np.abs(columns - x) / half_width, np.abs(rows - y) / half_height
    hidden = across**2 + along**2 <= 1 if ellipse else (across <= 1) & (along <= 1)
    covered = image.copy()
    covered[hidden] = 127
    return covered


def silhouette(image: np.ndarray, modality: str) -> np.ndarray:
    """Only what is empty frame and what is not: (S, S, 3) uint8 of 0 and 255, holes filled."""
    grey = ndimage.uniform_filter(image.mean(axis=2), 3)
    filled = ndimage.binary_fill_holes(grey > SILHOUETTE_LEVEL)
    return np.repeat((filled * np.uint8(255))[..., None], 3, axis=2)


def _whole(image: np.ndarray, modality: str) -> np.ndarray:
    return image


HIDDEN: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "whole": _whole,
    "centre hidden": hide_centre,
    "silhouette": silhouette,
}


def altered(packed: np.ndarray, modalities: list[str], size: int, kind: str) -> np.ndarray:
    """Reduced and altered images, (n, size, size, 3) uint8, of (n, H, H, 3) uint8."""
    pixels = to_pixels(packed, size).add(1).mul(127.5).round()
    images = pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pairs = zip(images, modalities, strict=True)
    return np.stack([HIDDEN[kind](image, modality) for image, modality in pairs])


def prepared(
    packed: np.ndarray, modalities: list[str], size: int, kind: str, path: Path
) -> np.ndarray:
    """`altered` images in a file that is mapped, since all of them are many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(packed), size, size, 3)
    )
    for start in range(0, len(packed), 256):
        part = slice(start, start + 256)
        kept[part] = altered(packed[part], modalities[part], size, kind)
    kept.flush()
    return kept


def finding_figures(
    reader: Reader, images: np.ndarray, rows: list[dict[str, str]]
) -> dict[str, dict[str, list[dict]]]:
    """AUC of every finding of `finding_heads.yaml` on held-out images, within its source.

    Returns:
        By modality and finding, one entry a head: `auc`, `interval`, `with`, `without`.
    """
    heads = {head.name: head for head in reader.heads}
    readings = reader.read(images)
    figures: dict[str, dict[str, list[dict]]] = {}
    for modality, findings in finding_heads().items():
        figures[modality] = {}
        for finding, members in findings.items():
            figures[modality][finding] = [
                _figure(heads[member["head"]], member["shows"], readings, rows)
                for member in members
            ]
    return figures


def _figure(head: Head, shows: list[str], readings: list, rows: list[dict[str, str]]) -> dict:
    answers = targets(head, rows)
    known = np.flatnonzero(answers != IGNORED)
    scores = np.array([finding_odds(readings[i].heads[head.name], shows) for i in known])
    positive = np.isin(answers[known], [head.classes.index(name) for name in shows])
    with_it, without = scores[positive], scores[~positive]
    low, high = auc_interval(with_it, without)
    return {
        "head": head.name,
        "auc": round(auc(with_it, without), 3),
        "interval": [round(low, 3), round(high, 3)],
        "with": len(with_it),
        "without": len(without),
    }


def conclude(figures: dict[str, dict], least_auc: float) -> dict[str, dict[str, list[dict]]]:
    """Put the three readers beside each other and say where the source is read.

    Args:
        figures: By name in `HIDDEN`, what `finding_figures` returned.
        least_auc: Where the interval's lower end reaches this without the lesion, the finding
            would pass for measurable unseen: it reads the source.
    """
    table: dict[str, dict[str, list[dict]]] = {}
    # A head of two classes answers one question twice; their intervals may differ by a hair.
    same: dict[tuple, bool] = {}
    for modality, findings in figures["whole"].items():
        table[modality] = {}
        for finding, entries in findings.items():
            table[modality][finding] = []
            for place in range(len(entries)):
                by_kind = {kind: figures[kind][modality][finding][place] for kind in figures}
                blind = [one for kind, one in by_kind.items() if kind != "whole"]
                reads_source = any(one["interval"][0] >= least_auc for one in blind)
                question = (modality, *((one.get("head"), one["auc"]) for one in by_kind.values()))
                same[question] = same.get(question, False) or reads_source
                note = ", ".join(
                    f"{kind} {one['auc']:.2f} ({one['interval'][0]:.2f}-{one['interval'][1]:.2f})"
                    for kind, one in by_kind.items()
                )
                table[modality][finding].append(
                    {**by_kind, "reads_source": question, "note": f"AUC {note}"}
                )
    for findings in table.values():
        for entries in findings.values():
            for entry in entries:
                entry["reads_source"] = same[entry["reads_source"]]
    return table


def main(path: str) -> None:
    """Train the three readers, measure them on `split=test`, write the audit's table."""
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    base = yaml.safe_load(Path(config["reader"]).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    rows = read_table(base["table"])
    packed = np.load(config["images"], mmap_mode="r")
    test = np.array([i for i, row in enumerate(rows) if fold(row) == "test"])
    work, figures = Path(config["work"]), {}
    modalities = [row["modal"] for row in rows]
    for kind, size in config["sizes"].items():
        folder = work / kind.replace(" ", "_")
        if not (folder / "reader.safetensors").is_file():
            pixels = folder.with_suffix(".npy")
            prepared(packed, modalities, size, kind, pixels)
            overrides = {key: config[key] for key in ("seed", "epochs", "spoiled")}
            paths = {"images": str(pixels), "out": str(folder)}
            train({**base, **overrides, **paths, "size": size})
            pixels.unlink()
        images = altered(packed[test], [modalities[i] for i in test], size, kind)
        figures[kind] = finding_figures(Reader.load(folder), images, [rows[i] for i in test])
    document = {
        "source": f"python -m medgen.measure.shortcut_audit {path}",
        "least_auc": config["least_auc"],
        "findings": conclude(figures, config["least_auc"]),
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    write_atomic(config["out"], text)
    print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

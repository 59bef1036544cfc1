"""Patient-grouped cross-validation of a chest segmenter, with bootstrap intervals.

Run as `python -m medgen.measure.cross_validate_segmenter configs/segmenter_evaluation.yaml`. Each
fold's model is kept, so that a run goes on where it stopped and evaluation can bundle some. A
second part of a training (`folds_start`) goes on from the first part's folds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from medgen.data.images import write_atomic
from medgen.measure.chest import cardiothoracic_ratio
from medgen.measure.chest_masks import MaskedFilms, read_masked_films
from medgen.measure.segmentation import load_segmenter, probabilities, save_segmenter
from medgen.measure.train_segmenter import fit, fold_of, read_others


def dice(predicted: np.ndarray, target: np.ndarray) -> float:
    """Dice coefficient (0-1) of two bool arrays; 1 when both are empty."""
    total = int(predicted.sum() + target.sum())
    return 1.0 if total == 0 else 2 * int((predicted & target).sum()) / total


def film_figures(films: MaskedFilms, row: int, masks: np.ndarray) -> dict[str, float | str]:
    """Dice by structure and cardiothoracic figures of one film.

    Args:
        films: The annotated films.
        row: Which film.
        masks: (3, 128, 128) predicted probabilities.

    Returns:
        Dice for the annotated structures; for films with an annotators' ratio the signed
        `ratio error`, or `abstained` 1 and no error. `group` names the patient group.
    """
    figures: dict[str, float | str] = {"group": films.groups[row]}
    both = (masks[0] > 0.5) | (masks[1] > 0.5)
    figures["both lungs"] = dice(both, films.union[row] > 0.5)
    for channel, name in enumerate(("right lung", "left lung", "cardiomediastinum")):
        if films.known[row, channel]:
            figures[name] = dice(masks[channel] > 0.5, films.targets[row, channel] > 0.5)
    if np.isfinite(films.ratios[row]):
        ratio, _ = cardiothoracic_ratio(masks)
        figures["abstained"] = float(ratio is None)
        if ratio is not None:
            figures["ratio error"] = ratio - float(films.ratios[row])
            figures["absolute ratio error"] = abs(ratio - float(films.ratios[row]))
    return figures


def bootstrap(
    rows: list[dict[str, float | str]], name: str, draws: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Mean of a figure with its 95 % interval, resampling patient groups.

    Returns:
        `mean`, `low`, `high` and `films`, the number of films with that figure.
    """
    by_group: dict[str, list[float]] = {}
    for row in rows:
        if name in row:
            by_group.setdefault(str(row["group"]), []).append(float(row[name]))
    sums = np.array([sum(values) for values in by_group.values()])
    counts = np.array([len(values) for values in by_group.values()])
    picks = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "mean": round(float(sums.sum() / counts.sum()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "films": int(counts.sum()),
    }


def summary(rows: list[dict[str, float | str]]) -> dict[str, dict[str, float]]:
    """`bootstrap` of every figure that occurs."""
    names = sorted({name for row in rows for name in row} - {"group"})
    return {name: bootstrap(rows, name) for name in names}


def main(path: str) -> None:
    """Cross-validate what a configuration says; write folds and `figures.json` to `folds_out`."""
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    films = read_masked_films(config["data"])
    folds = np.array([fold_of(group, config["folds"]) for group in films.groups])
    out = Path(config["folds_out"])
    rows: list[dict[str, float | str]] = []
    for fold in range(config["folds"]):
        folder = out / f"fold{fold}"
        held = [int(row) for row in np.nonzero(folds == fold)[0]]
        if not (folder / "segmenter.safetensors").is_file():
            seeded = {**config, "seed": config["seed"] + fold}
            if "folds_start" in config:
                seeded["start"] = str(Path(config["folds_start"]) / f"fold{fold}")
            others = read_others(config["data"], config.get("others", 0), seeded["seed"])
            model = fit(films, np.nonzero(folds != fold)[0], seeded, others)
            save_segmenter(model, seeded, folder)
        masks = probabilities(load_segmenter(folder), films.films[held])
        rows += [film_figures(films, row, mask) for row, mask in zip(held, masks, strict=True)]
        print(f"fold {fold}: {json.dumps(summary(rows))}", flush=True)
    write_atomic(out / "figures.json", json.dumps(summary(rows), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""How well a folder of TorchXRayVision weights does on the project's labelled films: its card.

Run as `python -m medgen.measure.torchxrayvision_card FOLDER DATA`: writes `card.yaml` into the
folder, by pathology the AUC on the small NIH films (adults, 64x64, labels read from reports) and a
logistic. Weights that were taught on NIH films have seen these or their neighbours, which the card
says.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import yaml
from scipy.special import logit

from medgen.data.images import load_square, write_atomic
from medgen.measure.anatomy_card import MIN_AUC, MIN_CASES
from medgen.measure.statistics import auc, auc_interval, fit_logistic
from medgen.measure.tabulate_anatomy import SMALL_FILMS
from medgen.measure.torchxrayvision import ChestClassifiers
from medgen.measure.train_reader import read_table


def pathology_figures(scores: np.ndarray, present: np.ndarray, none: np.ndarray) -> dict:
    """Figures of one pathology.

    Args:
        scores: (n,) outputs in 0-1.
        present: (n,) bool, the film's labels name it.
        none: (n,) bool, the film is labelled "No Finding".
    """
    odds = logit(np.clip(scores, 1e-4, 1 - 1e-4))
    with_it, without = odds[present], odds[none]
    entry: dict = {"with": len(with_it), "without": len(without), "measurable": False}
    if min(len(with_it), len(without)) < MIN_CASES:
        return {**entry, "reason": f"only {len(with_it)} films with it; {MIN_CASES} are needed"}
    low, high = auc_interval(with_it, without)
    known = present | none
    intercept, slope = fit_logistic(odds[known], present[known].astype(int), prior_slope=1.0)
    area = auc(with_it, without)
    figure = f"AUC {area:.3f} ({low:.3f}-{high:.3f})"
    return {
        **entry,
        "measurable": bool(low >= MIN_AUC and slope > 0),
        "reason": None if low >= MIN_AUC and slope > 0 else f"{figure} is too low",
        "intercept": round(intercept, 4),
        "slope": round(slope, 4),
        "weight": round(max(0.0, 2 * low - 1), 4),
        "accuracy": f"{figure} on {len(with_it)} NIH films (64x64) with and {len(without)} without "
        "any finding; the weights may have been taught on these patients",
    }


def main(folder: str, data: str) -> None:
    """Measure every pathology that the small films name, and write the card."""
    classifiers = ChestClassifiers.load(folder)
    rows = read_table(Path(data) / SMALL_FILMS)
    read = [classifiers.read(load_square(Path(data) / row["path"], 256)) for row in rows]
    labels = [row["findings"].split("|") for row in rows]
    none = np.array([one == ["No Finding"] for one in labels])
    card = {}
    for name in classifiers.pathologies:
        present = np.array([name in one for one in labels])
        if name and present.any():
            scores = np.array([one[name] for one in read])
            card[name] = pathology_figures(scores, present, none)
            print(name, card[name], flush=True)
    write_atomic(Path(folder) / "card.yaml", yaml.safe_dump(card, sort_keys=False))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

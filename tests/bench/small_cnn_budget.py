"""How far the utility suite's small network comes with its budget on real images alone.

Run as `python tests/bench/small_cnn_budget.py ../shared/data/manifest.csv [SOURCE ...]`. Training
side only: 150 images a class outside the validation fold, tested on the fold, seeds 0 and 1.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score

from medgen.data.images import load_square
from medgen.data.splits import is_validation
from medgen.evaluation.small_cnn import probabilities, train
from medgen.evaluation.utility import default_budget

CLASSES = {
    "nickparvar_tumor": ["glioma", "meningioma", "no tumor", "pituitary tumor"],
    "kermany_pneumonia": ["normal", "bacterial pneumonia", "viral pneumonia"],
    "eye4class": ["normal", "glaucoma", "cataract"],
    "lung_cancer_filtered": ["lung adenocarcinoma", "squamous cell lung carcinoma"],
    "radiography_adult": ["normal", "COVID-19"],
}
PER_CLASS = 150
SEEDS = (0, 1)


def main(table: Path, sources: list[str]) -> None:
    torch.set_num_threads(1)
    frame = pd.read_csv(table, keep_default_na=False)
    budget = default_budget()

    def pixels(paths: pd.Series) -> np.ndarray:
        # Through 256 pixels, as the images that the generator draws.
        step = 256 // budget.size
        squares = (load_square(table.parent / path, 256).astype(np.float32) for path in paths)
        shape = (budget.size, step, budget.size, step, 3)
        return np.stack([s.reshape(shape).mean(axis=(1, 3)).astype(np.uint8) for s in squares])

    for source in sources or list(CLASSES):
        classes = CLASSES[source]
        chance = np.random.default_rng(0)
        rows = frame[(frame.source == source) & (frame.split == "train")]
        rows = rows[rows.label.isin(classes)]
        held = rows.group.map(is_validation)
        known = np.concatenate(
            [
                chance.choice(rows.index[~held & (rows.label == name)], PER_CLASS, replace=False)
                for name in classes
            ]
        )
        numbers = frame.label.map({name: place for place, name in enumerate(classes)})
        images, tested = pixels(frame.path[known]), pixels(rows.path[held])
        truth = numbers[rows.index[held]].to_numpy(dtype=int)
        started = time.process_time()
        scores = []
        for seed in SEEDS:
            labels = numbers[known].to_numpy(dtype=int)
            model = train(images, labels, len(classes), budget, seed)
            named = probabilities(model, tested).argmax(axis=1)
            scores.append(float(balanced_accuracy_score(truth, named)))
        print(
            f"{source}: {len(tested)} validation images of {len(classes)} classes, balanced "
            f"accuracy {np.mean(scores):.3f} ({', '.join(f'{one:.3f}' for one in scores)}), "
            f"{(time.process_time() - started) / len(SEEDS):.1f} s a training",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

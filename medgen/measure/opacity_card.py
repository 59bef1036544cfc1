"""How well lung opacity tells opaque from clear lungs, by population: the opacity check's card.

Run as `python -m medgen.measure.opacity_card DATA CHEST.csv`, the second from
`medgen.measure.tabulate_chest`. A logistic of the denser lung's opacity is fitted on `split=train`
(classes weighted equally), separately for children and adults, and measured on `split=test`. Labels
say nothing of the side; it is checked on the few adult films whose opacities were outlined. Films
of
a third hospital (`tests/bench/test_chest_films.py`) overrule a figure that they contradict.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from medgen.data.images import write_atomic
from medgen.measure.chest_masks import LEFT_LUNG, OPACITY, RIGHT_LUNG
from medgen.measure.statistics import auc, auc_interval, fit_logistic, share_interval
from medgen.measure.train_reader import fold, read_table

OUT = Path(__file__).parent / "weights" / "opacity" / "card.yaml"
POPULATIONS = {
    "child": ("kermany_pneumonia", {"normal": 0, "bacterial pneumonia": 1, "viral pneumonia": 1}),
    "adult": ("radiography_adult", {"normal": 0, "COVID-19": 1}),
}
# Lower than for classifiers: a weak measure's probabilities are near 0.5, where the panel abstains.
MIN_AUC = 0.65
# Normal films of adults and COVID-19 come from different hospitals; inside one it did not hold.
ELSEWHERE = {
    "adult": "density ranks adult PA films with infiltration below films without (AUC 0.37, nih_64)"
}
# Share of a lung by which an outlined side must exceed the other to count as the denser one.
SIDE_DIFFERENCE = 0.1


def side_agreement(data: Path, sides: dict[str, tuple[float, float]]) -> tuple[int, int]:
    """Outlined films whose measured denser lung is the outlined one, and all: (agreeing, films)."""
    agreeing = films = 0
    with (data / "masks.csv").open(newline="", encoding="utf-8") as stream:
        entries = [row for row in csv.DictReader(stream) if "bit mask" in row["kind"]]
    for entry in entries:
        bits = np.asarray(Image.open(data / entry["mask"]).convert("L"))
        opaque = (bits & OPACITY) > 0
        lungs = [(bits & lung) > 0 for lung in (RIGHT_LUNG, LEFT_LUNG)]
        right, left = (float((opaque & lung).sum() / max(lung.sum(), 1)) for lung in lungs)
        if entry["image"] in sides and abs(right - left) > SIDE_DIFFERENCE:
            measured_right, measured_left = sides[entry["image"]]
            films += 1
            agreeing += (right > left) == (measured_right > measured_left)
    return agreeing, films


def write_card(data: Path, measurements: str) -> None:
    """Fit, measure and write `card.yaml`, printing the figures."""
    with Path(measurements).open(newline="", encoding="utf-8") as stream:
        sides = {
            row["path"]: (float(row["opacity_right"]), float(row["opacity_left"]))
            for row in csv.DictReader(stream)
            if row["opacity_right"] and row["opacity_left"]
        }
    measured = {path: max(pair) for path, pair in sides.items()}
    rows = read_table(data / "manifest.csv")
    agreeing, outlined = side_agreement(data, sides)
    document = {}
    for population, (source, labels) in POPULATIONS.items():
        films = [r for r in rows if r["source"] == source and r["label"] in labels]
        known = [r for r in films if r["path"] in measured]

        def part(name: str, known: list = known, labels: dict = labels) -> tuple:
            chosen = [r for r in known if (fold(r) == "test") == (name == "test")]
            return (
                np.array([measured[r["path"]] for r in chosen]),
                np.array([labels[r["label"]] for r in chosen]),
            )

        values, opaque = part("train")
        intercept, slope = fit_logistic(values, opaque)
        test, truth = part("test")
        with_it, without = test[truth == 1], test[truth == 0]
        area, (low, high) = auc(with_it, without), auc_interval(with_it, without)
        right = (intercept + slope * test > 0) == (truth == 1)
        share = share_interval(int(right.sum()), len(right))
        missing = sum(fold(r) == "test" for r in films) - len(test)
        odds = np.log(0.6 / 0.4)
        reason = None
        if low < MIN_AUC or slope <= 0:
            reason = f"AUC {area:.2f} ({low:.2f}-{high:.2f}) on held-out films is too low"
        reason = ELSEWHERE.get(population, reason)
        document[population] = {
            "measurable": reason is None,
            "reason": reason,
            "intercept": round(intercept, 4),
            "slope": round(slope, 4),
            "opaque_from": round(float((odds - intercept) / slope), 4),
            "clear_to": round(float((-odds - intercept) / slope), 4),
            "opaque_target": round(float(np.percentile(values[opaque == 1], 75)), 4),
            "clear_target": round(float(np.percentile(values[opaque == 0], 25)), 4),
            "weight": round(max(0.0, 2 * low - 1), 4),
            "side_accuracy": round(agreeing / outlined, 4),
            "accuracy": f"AUC {area:.3f} ({low:.3f}-{high:.3f}), accuracy {right.mean():.2f} "
            f"({share[0]:.2f}-{share[1]:.2f}) of the denser lung on {len(with_it)} films with and "
            f"{len(without)} without, held out within {source}, {missing} not measurable; "
            f"denser side as outlined in {agreeing} of {outlined} adult films",
        }
        print(population, document[population], flush=True)
    card = {
        "source": "python -m medgen.measure.opacity_card on the image table, its masks and its "
        "chest measurements (medgen.measure.tabulate_chest)",
        "populations": document,
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=100)
    write_atomic(OUT, text)


if __name__ == "__main__":
    write_card(Path(sys.argv[1]), sys.argv[2])

"""Does verification pay? Classifiers taught by verified drawings, and by as many unverified ones.

Run by hand on datasets of `medgen synthesize` drawn with `control_share: 0`, so that the first
candidate of each task is what `medgen generate` would have drawn:
`python tests/bench/verification_pays.py ../brain --data ../shared/data --modality "Brain MRI"`.
Verified are the accepted images; unverified the first candidates of the tasks, accepted or not.
Both have as many images a class, chosen by the hash of their ids, and go through evaluation's
utility suite with the same seeds, so that the difference is paired. Several datasets (other seeds)
are averaged. Classes with under 30 images in an arm are left out. `--split val` tests on the fold
that is carved out of the training images, to try the script; the claim reads `split=test`, once.
"""

import argparse
import csv
import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import Row
from medgen.data.splits import is_validation
from medgen.evaluation.arms import ACCURACY, AREA, REAL, SYNTHETIC, Score, score
from medgen.evaluation.classes import Task, tasks
from medgen.evaluation.context import Context
from medgen.evaluation.figures import LEAST, interval
from medgen.evaluation.small_cnn import Budget
from medgen.evaluation.tables import read_table
from medgen.evaluation.utility import default_budget

SIDE = 256
# Labels of datasets as the real tables call them.
NAMES = {
    "Brain MRI": {"normal": "no tumor", "brain tumor": ""},
    "Fundus": {},
    "Chest CT": {},
    "Chest X-ray": {"COVID-19 pneumonia": "COVID-19"},
}


def chosen(folder: str, names: dict[str, str], confidence: float) -> dict[str, dict[str, list]]:
    """By arm and class, the rows of a dataset in the order of their ids' hashes."""
    found: dict[str, dict[str, list]] = {"verified": defaultdict(list), "first": defaultdict(list)}
    for row in open_dataset(folder).rows():
        label = names.get(row.label, row.label)
        if label and row.kept and sure(row) >= confidence:
            found["verified"][label].append(row)
        if label and row.attempt == 1:
            found["first"][label].append(row)
    for by in found.values():
        for rows in by.values():
            rows.sort(key=lambda row: hashlib.sha256(row.id.encode()).hexdigest())
    return found


def sure(row: Row) -> float:
    """The least confidence among an image's confirmed findings."""
    return min((f.confidence or 0 for f in row.findings if f.verdict == "confirmed"), default=0)


def write_synthetic(folder: str, by: dict[str, list], most: int, target: Path) -> Path:
    """A table of `most` images a class."""
    with target.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(("path", "text", "modal", "label", "group"))
        for label, rows in sorted(by.items()):
            for row in rows[:most]:
                path = Path(folder).resolve() / row.path
                lines.writerow((path, row.prompt, row.modality, label, row.group))
    return target


def split_of(row: dict[str, str]) -> str:
    """train, val or test."""
    held = row["split"] == "train" and is_validation(row["group"])
    return "val" if held else row["split"]


def write_real(data: Path, modality: str, split: str, target: Path) -> Path:
    """A table of the real images of one modality and split."""
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = [
            row
            for row in csv.DictReader(stream)
            if row["modal"] == modality and split_of(row) == split
        ]
    with target.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.DictWriter(stream, rows[0].keys())
        lines.writeheader()
        for row in rows:
            lines.writerow({**row, "path": (data / row["path"]).resolve()})
    return target


def measured(
    real: Path, train: Path, synthetic: Path, source: str, seed: int, budget: Budget
) -> Score:
    """One arm's score, the real arm's beside it."""
    tables = [read_table(path, name, SIDE) for path, name in
              ((real, "real"), (synthetic, "synthetic"), (train, "train"))]  # fmt: skip
    context = Context(tables[0], tables[1], tables[2], (), synthetic.parent, seed=seed)
    found = tasks(*tables, seed)
    (task,) = [one for one in found if one.source == source]
    assert isinstance(task, Task), task.why
    return score(context, task, budget, lambda: print(".", end="", flush=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--modality", default="Brain MRI")
    parser.add_argument("--source", default="nickparvar_tumor")
    parser.add_argument("--most", type=int, default=1000, help="Images a class, at most.")
    parser.add_argument("--confidence", type=float, default=0, help="Least, of verified images.")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--trainings", type=int, help="Of each arm; utility.yaml's when not given.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    budget = default_budget()
    if told.trainings:
        budget = replace(budget, seeds=told.trainings)
    told.out.mkdir(parents=True, exist_ok=True)
    real = write_real(told.data, told.modality, told.split, told.out / "real.csv")
    train = write_real(told.data, told.modality, "train", told.out / "train.csv")
    scores: dict[str, list[Score]] = {"verified": [], "first": []}
    for number, folder in enumerate(told.datasets):
        arms = chosen(folder, NAMES[told.modality], told.confidence)
        counts = {arm: {name: len(rows) for name, rows in by.items()} for arm, by in arms.items()}
        fewest = {name: min(by.get(name, 0) for by in counts.values()) for name in counts["first"]}
        size = min(told.most, *(count for count in fewest.values() if count >= LEAST))
        print(folder, counts, f"{size} a class")
        for arm, by in arms.items():
            kept = {name: rows for name, rows in by.items() if fewest[name] >= LEAST}
            table = write_synthetic(folder, kept, size, told.out / f"{arm}_{number}.csv")
            seed = told.seed + number
            scores[arm].append(measured(real, train, table, told.source, seed, budget))
            print()
    figures = {}
    metrics = sorted({metric for _, metric in scores["first"][0].values} - {ACCURACY, AREA})
    for metric in (ACCURACY, AREA, *metrics):
        for name, arm in (("verified", SYNTHETIC), ("first", SYNTHETIC), ("verified", REAL)):
            label = f"{metric}, {'real' if arm == REAL else name}"
            figures[label] = _figure(scores[name], (arm, metric))
        gains = [
            a.replicates[SYNTHETIC, metric] - b.replicates[SYNTHETIC, metric]
            for a, b in zip(scores["verified"], scores["first"], strict=True)
        ]
        value = figures[f"{metric}, verified"][0] - figures[f"{metric}, first"][0]
        figures[f"{metric}, verified - first"] = (value, *interval(np.mean(gains, axis=0)))
    for label, (value, low, high) in figures.items():
        print(f"{label}: {value:.3f} [{low:.3f}, {high:.3f}]")
    (told.out / "figures.json").write_text(json.dumps(figures, indent=1))


def _figure(found: list[Score], key: tuple[str, str]) -> tuple[float, float, float]:
    value = float(np.mean([one.values[key] for one in found]))
    return (value, *interval(np.mean([one.replicates[key] for one in found], axis=0)))


if __name__ == "__main__":
    main()

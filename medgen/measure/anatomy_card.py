"""Figures of the anatomy checks: ranges on real images, and how well a value tells a finding.

Run as `python -m medgen.measure.anatomy_card DATA FOLDER`, the folder written by
`medgen.measure.tabulate_anatomy`; a modality without a table there keeps its figures. Ranges are
the 1st and 99th percentile of training images by modality. Findings: a logistic fitted on
`split=train`, both classes weighing the same, measured on `split=test` within the same source. The
small NIH films have no split, and some classes have fewer than 30 test images: there all images
count, in 5 folds by patient or group.
"""

from __future__ import annotations

import csv
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import yaml

from medgen.data.images import write_atomic
from medgen.measure.statistics import auc, auc_interval, fit_logistic, share_interval
from medgen.measure.tabulate_anatomy import SMALL_FILMS
from medgen.measure.train_reader import fold, read_table

OUT = Path(__file__).parent / "weights" / "anatomy" / "figures.yaml"
MIN_AUC, MIN_CASES = 0.65, 30
"""As for lung opacity: a weak measure's probabilities lie near 0.5, where the panel abstains."""
MOST_REJECTED = 0.02
"""Share of real held-out images that a count may reject; one that would reject more is told."""
FOLDS = 5


@lru_cache
def anatomy_cards() -> dict[str, dict]:
    """`anatomy_cards.yaml`, by modality."""
    text = (resources.files("medgen.measure") / "anatomy_cards.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


Row = dict[str, str]


def labelled_rows(data: Path) -> dict[str, Row]:
    """Every image by path with `source`, `labels` (split by "|"), `fold`, `group`, `view`."""
    rows = {
        row["path"]: {
            "source": row["source"],
            "labels": row["label"],
            "fold": fold(row),
            "group": row["group"],
            "view": "",
        }
        for row in read_table(data / "manifest.csv")
    }
    for row in read_table(data / SMALL_FILMS):
        rows[row["path"]] = {
            "source": "nih_64",
            "labels": row["findings"],
            "fold": "test",
            "group": row["patient_id"],
            "view": row["view"],
        }
    return rows


def read_values(path: Path) -> dict[str, dict[str, float]]:
    """Value by name by image path."""
    table: dict[str, dict[str, float]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            table[row["path"]][row["name"]] = float(row["value"])
    return table


def ranges(
    table: Mapping[str, Mapping[str, float]], rows: Mapping[str, Row], names: list[str]
) -> dict[str, dict]:
    """1st to 99th percentile of each value on training images, and how many had one."""
    train = [path for path in table if rows[path]["fold"] == "train"]
    found = {}
    for name in names:
        values = np.array([table[path][name] for path in train if name in table[path]])
        if len(values) == 0:
            continue
        low, high = np.percentile(values, [1, 99])
        found[name] = {
            "range": [round(float(low), 4), round(float(high), 4)],
            "images": len(values),
            "abstained": len(train) - len(values),
        }
    return found


def _answer(spec: dict, path: str, row: Row) -> int | None:
    """1 with the finding, 0 without, None for a row that does not count."""
    if row["source"] != spec["source"] or spec.get("view", row["view"]) != row["view"]:
        return None
    if "only" in spec and not re.search(spec["only"], path):
        return None
    labels = row["labels"].split("|") if row["source"] == "nih_64" else [row["labels"]]
    if any(label in spec["with"] for label in labels):
        return 1
    return 0 if any(label in spec["without"] for label in labels) else None


def finding_figures(
    spec: dict, table: Mapping[str, Mapping[str, float]], rows: Mapping[str, Row]
) -> dict:
    """How well one value tells one finding: the logistic, its AUC, and whether it may judge."""
    known = [
        (path, answer, table[path].get(spec["value"]))
        for path in table
        if (answer := _answer(spec, path, rows[path])) is not None
    ]
    measured = [(path, answer, value) for path, answer, value in known if value is not None]
    values = np.array([value for *_, value in measured])
    truth = np.array([answer for _, answer, _ in measured])
    folds = np.array([rows[path]["fold"] for path, *_ in measured])
    small = min((truth[folds == "test"] == answer).sum() for answer in (0, 1)) < MIN_CASES
    crossed = spec["source"] == "nih_64" or small
    if crossed:
        groups = [f"anatomy {rows[path]['group']}" for path, *_ in measured]
        folds = np.array([str(zlib.crc32(group.encode()) % FOLDS) for group in groups])
    train = np.full(len(folds), True) if crossed else folds == "train"
    test = np.full(len(folds), True) if crossed else folds == "test"
    counts = {
        "with_it": int((truth[test] == 1).sum()),
        "without_it": int((truth[test] == 0).sum()),
        "not_measured": len(known) - len(measured),
    }
    entry = {**spec, **counts}
    if len(set(truth[train].tolist())) < 2 or min(counts["with_it"], counts["without_it"]) == 0:
        return {**entry, "measurable": False, "reason": "no images to tell it from"}
    intercept, slope = fit_logistic(values[train], truth[train])
    sign = 1 if spec["more"] else -1
    scores = sign * values[test]
    with_it, without = scores[truth[test] == 1], scores[truth[test] == 0]
    area, (low, high) = auc(with_it, without), auc_interval(with_it, without)
    right = (intercept + slope * values[test] > 0) == (truth[test] == 1)
    if crossed:
        right = _crossed(values, truth, folds)
    share = share_interval(int(right.sum()), len(right))
    reason = None
    if min(counts["with_it"], counts["without_it"]) < MIN_CASES:
        reason = (
            f"only {counts['with_it']} held-out images with it and {counts['without_it']} without; "
            f"{MIN_CASES} of each are needed"
        )
    elif low < MIN_AUC or slope * sign <= 0:
        reason = f"AUC {area:.2f} ({low:.2f}-{high:.2f}) on held-out images is too low"
    elif "only_told" in spec:
        reason = spec["only_told"]
    how = "5 folds by group" if crossed else "held out"
    view = f", {spec['view']} films" if "view" in spec else ""
    return {
        **entry,
        "intercept": round(intercept, 4),
        "slope": round(slope, 4),
        "auc": round(area, 4),
        "auc_interval": [round(low, 4), round(high, 4)],
        "weight": round(max(0.0, 2 * low - 1), 4),
        "measurable": reason is None,
        "reason": reason,
        "accuracy": f"AUC {area:.3f} ({low:.3f}-{high:.3f}), accuracy {right.mean():.2f} "
        f"({share[0]:.2f}-{share[1]:.2f}) on {counts['with_it']} with and {counts['without_it']} "
        f"without, {how} within {spec['source']}{view}; {counts['not_measured']} not measurable",
    }


def _crossed(values: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    right = np.zeros(len(values), dtype=bool)
    for name in sorted(set(folds.tolist())):
        inside = folds == name
        intercept, slope = fit_logistic(values[~inside], truth[~inside])
        right[inside] = (intercept + slope * values[inside] > 0) == (truth[inside] == 1)
    return right


def rejected_real_images(
    table: Mapping[str, Mapping[str, float]], rows: Mapping[str, Row], name: str, card: Mapping
) -> dict:
    """How many real images a value outside `expected` would reject, unmeasured ones not among them.

    Of a value that judges clear lungs alone, films of the labels in `clear_lungs`.

    Args:
        table: Value by name by image path.
        rows: Every image.
        name: The value.
        card: Its entry in `anatomy_cards.yaml`.
    """
    low, high = card["expected"]
    only = card.get("clear_lungs")
    outside: dict[str, list[bool]] = {"held out": [], "training side": []}
    for path, values in table.items():
        if only is not None and rows[path]["labels"] not in only:
            continue
        part = "held out" if rows[path]["fold"] == "test" else "training side"
        outside[part].append(name in values and not low <= values[name] <= high)
    rejected, images = sum(outside["held out"]), len(outside["held out"])
    share = share_interval(rejected, images)
    kind = f"real {', '.join(only)}" if only is not None else "real"
    return {
        "expected": [float(low), float(high)],
        "rejected": rejected,
        "images": images,
        "interval": [round(share[0], 4), round(share[1], 4)],
        "train": f"{sum(outside['training side'])} of {len(outside['training side'])}",
        "rejects": rejected <= MOST_REJECTED * images,
        "clear_lungs": only is not None,
        "accuracy": f"{rejected} of {images} {kind} images rejected, "
        f"{share[0]:.3f}-{share[1]:.3f}, held out",
    }


def eye_sides(table: Mapping[str, Mapping[str, float]], rows: Mapping[str, Row]) -> dict:
    """How often the eye is named rightly, by the file names of the two sources that say it.

    `by_macula` is the same of the macula's side of the disc, which is told and judges nothing.
    """
    disc, macula = (_eyes_by(table, rows, value) for value in ("eye_side", "macula_eye"))
    return {**disc, "by_macula": macula["accuracy"]}


def _eyes_by(table: Mapping[str, Mapping[str, float]], rows: Mapping[str, Row], value: str) -> dict:
    counts = {"train": [0, 0, 0], "test": [0, 0, 0]}
    for path, values in table.items():
        named = re.search(r"_(left|right)$|(?<=\d)([LR])$", Path(path).stem)
        part = "test" if rows[path]["fold"] == "test" else "train"
        if named is None or rows[path]["source"] not in ("eye4class", "chasedb1"):
            continue
        side = 1.0 if (named[1] or named[2]) in ("right", "R") else -1.0
        counts[part][2] += 1
        if value in values:
            counts[part][0] += values[value] == side
            counts[part][1] += 1
    right, answered, asked = counts["test"]
    share = share_interval(right, max(answered, 1))
    return {
        "value": value,
        "right": 1,
        "share": round(right / max(answered, 1), 4),
        "interval": [round(share[0], 4), round(share[1], 4)],
        "answered": answered,
        "asked": asked,
        "train": f"{counts['train'][0]} of {counts['train'][1]} answered, of {counts['train'][2]}",
        "accuracy": f"{right} of {answered} eyes named rightly ({share[0]:.2f}-{share[1]:.2f}), "
        f"{asked - answered} of {asked} not named, held out, by the file names of eye4class and "
        "chasedb1",
    }


def main(data: str, folder: str) -> None:
    """Measure the tables of the folder and write `figures.yaml`."""
    rows = labelled_rows(Path(data))
    document = yaml.safe_load(OUT.read_text(encoding="utf-8"))
    document["source"] = "python -m medgen.measure.anatomy_card on medgen.measure.tabulate_anatomy"
    for modality, card in anatomy_cards().items():
        path = Path(folder) / f"{modality.lower().replace(' ', '_')}.csv".replace("-", "_")
        if not path.is_file():
            continue
        table = read_values(path)
        document["values"][modality] = ranges(table, rows, list(card["values"]))
        document["findings"][modality] = {
            finding: [finding_figures(spec, table, rows) for spec in specs]
            for finding, specs in card["findings"].items()
        }
        counts = {
            name: rejected_real_images(table, rows, name, value)
            for name, value in card["values"].items()
            if value.get("rejects")
        }
        if counts:
            document.setdefault("rejections", {})[modality] = counts
        if modality == "Fundus":
            document["sides"][modality] = eye_sides(table, rows)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    write_atomic(OUT, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

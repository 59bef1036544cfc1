"""Calibration of a reader and its card: which findings it may judge, and how well it does.

Run as `python -m medgen.measure.reader_card configs/reader.yaml`. Temperatures and each finding's
log-odds scale (fair against its nearest rival) come from the validation fold, figures from
`split=test`, inside one source each. A finding with fewer than `MIN_CASES` test images on either
side, or an AUC whose lower bound is under `MIN_AUC`, abstains.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.special import expit
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.measure.reader import (
    MODALITY,
    NO_MODALITY,
    Head,
    Reader,
    Reading,
    finding_odds,
    to_pixels,
)
from medgen.measure.statistics import (
    auc,
    auc_interval,
    calibration_error,
    fit_logistic,
    share_interval,
)
from medgen.measure.train_reader import IGNORED, fold, read_table, spoil, targets

MIN_CASES = 30
MIN_AUC = 0.75
MIN_CALIBRATION = 40
# Where the panel confirms and contradicts (its `panel.yaml`); only for the shares in the card.
CONFIRM, CONTRADICT = 0.6, 0.4


def finding_heads() -> dict[str, dict[str, list[dict]]]:
    """By modality and canonical finding: the heads that answer it (`finding_heads.yaml`)."""
    text = resources.files("medgen.measure").joinpath("finding_heads.yaml")
    return dict(yaml.safe_load(text.read_text(encoding="utf-8")))


def fit_temperature(logits: torch.Tensor, answers: torch.Tensor) -> float:
    """The temperature in 0.5-8 that minimises cross-entropy (Guo et al. 2017), by grid."""
    grid = np.exp(np.linspace(np.log(0.5), np.log(8.0), 57))
    losses = [float(F.cross_entropy(logits / float(t), answers)) for t in grid]
    return round(float(grid[int(np.argmin(losses))]), 3)


def calibrate(reader: Reader, images: np.ndarray, rows: list[dict[str, str]]) -> None:
    """Set `reader.temperatures` on validation images; heads with few of them share one value."""
    _, logits = reader.forward(images)
    pooled, scarce = [], []
    for head in reader.heads:
        answers = torch.from_numpy(targets(head, rows))
        known = answers != IGNORED
        if int(known.sum()) < MIN_CALIBRATION:
            scarce.append(head.name)
            continue
        reader.temperatures[head.name] = fit_temperature(logits[head.name][known], answers[known])
        if head.name != MODALITY:
            pooled.append(reader.temperatures[head.name])
    for name in scarce:
        reader.temperatures[name] = round(float(np.median(pooled)), 3)


@dataclass(frozen=True)
class Answered:
    """Images of one fold, read, with the rows they belong to."""

    readings: list[Reading]
    rows: list[dict[str, str]]

    def scores(self, member: dict, head: Head) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of a finding and the true class, on the rows that answer its head."""
        answers = targets(head, self.rows)
        known = np.flatnonzero(answers != IGNORED)
        values = [finding_odds(self.readings[i].heads[head.name], member["shows"]) for i in known]
        return np.array(values), answers[known]


def odds_scale(member: dict, head: Head, validation: Answered) -> tuple[float, float]:
    """(intercept, slope) that make a finding's log-odds fair against its nearest rival class.

    Against all other classes at once the easy ones (normal films) would set the limit so low that
    a rival (viral for bacterial pneumonia) passes it.
    """
    values, truth = validation.scores(member, head)
    shown = [head.classes.index(name) for name in member["shows"]]
    with_it = values[np.isin(truth, shown)]
    rivals = [values[truth == c] for c in range(len(head.classes)) if c not in shown]
    rivals = [rival for rival in rivals if len(rival)]
    if len(with_it) == 0 or not rivals:
        return 0.0, 1.0
    nearest = min(rivals, key=lambda rival: auc(with_it, rival))
    there = np.repeat([1, 0], [len(with_it), len(nearest)])
    return fit_logistic(np.concatenate([with_it, nearest]), there, prior_slope=1.0)


def card(
    reader: Reader,
    images: np.ndarray,
    rows: list[dict[str, str]],
    validation: Answered,
) -> dict:
    """The figures of a calibrated reader on held-out images; `validation` sets the odds' scale."""
    readings = reader.read(images)
    held_out = Answered(readings, rows)
    heads = {head.name: head for head in reader.heads}
    document: dict = {"heads": {}, "findings": {}}
    for head in reader.heads:
        answers = targets(head, rows)
        known = np.flatnonzero(answers != IGNORED)
        table = [
            reading.modality_probabilities if head.name == MODALITY else reading.heads[head.name]
            for reading in (readings[i] for i in known)
        ]
        probabilities = np.array([[entry[c] for c in head.classes] for entry in table])
        correct = probabilities.argmax(1) == answers[known]
        low, high = share_interval(int(correct.sum()), len(correct))
        entry = {
            "accuracy": round(float(correct.mean()), 4),
            "interval": [round(low, 4), round(high, 4)],
            "images": len(known),
            "calibration_error": round(
                calibration_error(probabilities.max(1), correct.astype(float)), 4
            ),
            "temperature": reader.temperatures.get(head.name, 1.0),
            "recall": {
                name: f"{int(correct[answers[known] == index].sum())} of "
                f"{int((answers[known] == index).sum())}"
                for index, name in enumerate(head.classes)
                if (answers[known] == index).any()
            },
        }
        document["heads"][head.name] = entry
    for modality, findings in finding_heads().items():
        document["findings"][modality] = {}
        for finding, members in findings.items():
            document["findings"][modality][finding] = [
                _finding_entry(member, heads[member["head"]], held_out, validation)
                for member in members
            ]
    entry = document["heads"][MODALITY]
    document["modality_accuracy"] = (
        f"accuracy {entry['accuracy']:.3f} ({entry['interval'][0]:.3f}-{entry['interval'][1]:.3f}) "
        f"on {entry['images']} held-out images"
    )
    spoiled = spoil(to_pixels(images, reader.size), torch.Generator().manual_seed(5))
    unlike = ((spoiled + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    named = [reading.modality == NO_MODALITY for reading in reader.read(unlike)]
    document["spoiled_rejected"] = f"{sum(named)} of {len(named)} spoiled test images"
    document["heads"][MODALITY]["real_called_none"] = (
        f"{sum(r.modality == NO_MODALITY for r in readings)} of {len(readings)}"
    )
    return document


def _finding_entry(member: dict, head: Head, held_out: Answered, validation: Answered) -> dict:
    intercept, slope = odds_scale(member, head, validation)
    odds, truth = held_out.scores(member, head)
    scores = expit(intercept + slope * odds)
    positive = np.isin(truth, [head.classes.index(name) for name in member["shows"]])
    with_it, without = scores[positive], scores[~positive]
    area = auc(with_it, without)
    low, high = auc_interval(with_it, without)
    right = (scores > 0.5) == positive
    share = share_interval(int(right.sum()), len(right))
    balanced = (right[positive].mean() + right[~positive].mean()) / 2
    entry = {
        "head": head.name,
        "shows": member["shows"],
        "population": member.get("population"),
        "auc": round(area, 4),
        "auc_interval": [round(low, 4), round(high, 4)],
        "with": len(with_it),
        "without": len(without),
        "accuracy": f"AUC {area:.3f} ({low:.3f}-{high:.3f}), balanced accuracy {balanced:.2f}, "
        f"accuracy {right.mean():.2f} ({share[0]:.2f}-{share[1]:.2f}) on {len(with_it)} with and "
        f"{len(without)} without, "
        f"held out within {', '.join(head.sources) or 'one source'}"
        + (f"; {member['note']}" if "note" in member else ""),
        "verdicts": {
            "with": _verdicts(with_it),
            "without": _verdicts(without),
        },
        "intercept": round(intercept, 4),
        "slope": round(slope, 4),
        "measurable": True,
        "reason": None,
    }
    if min(len(with_it), len(without)) < MIN_CASES:
        entry["reason"] = (
            f"only {len(with_it)} held-out images with it and {len(without)} without; "
            f"{MIN_CASES} of each are needed"
        )
    elif low < MIN_AUC:
        entry["reason"] = f"AUC {area:.2f} ({low:.2f}-{high:.2f}) on held-out images is too low"
    entry["measurable"] = entry["reason"] is None
    return entry


def _verdicts(scores: np.ndarray) -> str:
    confirmed, contradicted = (scores >= CONFIRM).sum(), (scores <= CONTRADICT).sum()
    return f"confirmed {confirmed}, contradicted {contradicted}, abstained " + str(
        len(scores) - confirmed - contradicted
    )


def main(config: dict, command: str) -> None:
    """Calibrate the trained reader in `config["out"]`, save it, and write its `card.yaml`."""
    reader = Reader.load(config["out"])
    reader.config["seed"] = config["seed"]
    table = read_table(config["table"])
    packed = np.load(config["images"], mmap_mode="r")
    folds = np.array([fold(row, config.get("fold_salt", "")) for row in table])
    validation, test = np.flatnonzero(folds == "val"), np.flatnonzero(folds == "test")
    calibrate(reader, packed[validation], [table[i] for i in validation])
    reader.save(config["out"])
    rows = [table[i] for i in validation]
    read = Answered(reader.read(packed[validation]), rows)
    document = card(reader, packed[test], [table[i] for i in test], read)
    document = {"source": command, "validation_images": len(validation), **document}
    document = json.loads(json.dumps(document, default=float))
    write_atomic(
        Path(config["out"]) / "card.yaml",
        yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
    )
    for modality, findings in document["findings"].items():
        for finding, entries in findings.items():
            for entry in entries:
                verdict = "judged" if entry["measurable"] else "abstains"
                print(f"{modality}: {finding}: {entry['accuracy']}: {verdict}", flush=True)
    for name, entry in document["heads"].items():
        print(name, {key: value for key, value in entry.items() if key != "recall"}, flush=True)


if __name__ == "__main__":
    main(
        yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")),
        f"python -m medgen.measure.reader_card {sys.argv[1]}",
    )

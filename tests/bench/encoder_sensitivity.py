"""How evaluation's encoder reacts to harm: on its own validation fold, never trained on.

`python tests/bench/encoder_sensitivity.py configs/encoder_evaluation.yaml` prints the tables of
docs/experiments/evaluation.md: graded distortions, modality against modality, class against class.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from medgen.evaluation.distances import frechet_distance, kernel_distance, neighbourhood_scores
from medgen.evaluation.encoder import CompactEncoder, to_pixels
from medgen.evaluation.fidelity import halve
from medgen.evaluation.train_encoder import DISTORTIONS, distort, name_classes
from medgen.measure.train_reader import fold, read_table

STRENGTHS = (0.25, 0.5, 1.0)
SPLITS = 8
LEAST = 30


def spoiled_features(
    encoder: CompactEncoder, images: np.ndarray, kind: str, strength: float, most: dict
) -> np.ndarray:
    """Features (n, d) of distorted images."""
    draws, parts = np.random.default_rng(0), []
    for start in range(0, len(images), 32):
        clean = to_pixels(images[start : start + 32], encoder.size)
        changed = [distort(image, kind, strength, clean, most, draws) for image in clean]
        with torch.inference_mode():
            parts.append(encoder.net(torch.stack(changed)).numpy())
    return np.concatenate(parts)


def halvings(groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Halves of equal size, no group on both sides."""
    generator, found = np.random.default_rng(0), []
    for _ in range(SPLITS):
        first, second = halve(groups, generator)
        size = min(len(first), len(second))
        found.append((generator.permutation(first)[:size], generator.permutation(second)[:size]))
    return found


def row(real: np.ndarray, other: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """KID, FID, precision, coverage of one half against the other half's changed images."""
    scores = []
    for first, second in halvings(groups):
        near = neighbourhood_scores(real[first], other[second])
        scores.append(
            [
                kernel_distance(real[first], other[second]),
                frechet_distance(real[first], other[second]),
                near["precision"],
                near["coverage"],
            ]
        )
    return np.mean(scores, axis=0)


@dataclass(frozen=True)
class Fold:
    """The validation fold: pixels, features, and the images of each modality and class."""

    images: np.ndarray
    clean: np.ndarray
    groups: np.ndarray
    modals: dict[str, list[int]]
    truth: list[str]


def validation(config: dict, encoder: CompactEncoder) -> Fold:
    """Read the fold; modalities without enough images for two halves are left out."""
    table = read_table(config["table"])
    train = [r for r in table if fold(r, config["fold_salt"]) == "train"]
    kept = [i for i, r in enumerate(table) if fold(r, config["fold_salt"]) == "val"]
    rows, images = [table[i] for i in kept], np.load(config["images"], mmap_mode="r")[kept]
    groups = np.array([r["group"] for r in rows])
    members = defaultdict(list)
    for index, r in enumerate(rows):
        members[r["modal"]].append(index)
    modals = {
        modal: members[modal]
        for modal in sorted(members)
        if len(halvings(groups[members[modal]])[0][0]) >= LEAST
    }
    classes = dict(
        zip(name_classes(train, 0), name_classes(train, config["least_of_class"]), strict=True)
    )
    truth = [classes.get(f"{r['source']}: {r['label']}", f"{r['source']}: other") for r in rows]
    return Fold(images, encoder(images), groups, modals, truth)


def heads(encoder: CompactEncoder, data: Fold) -> None:
    """What the heads say of clean images, and how the features are spread."""
    told = [encoder.classes[i] for i in encoder.logits(data.clean).argmax(1)]
    pairs = list(zip(data.truth, told, strict=True))
    right = np.mean([a == b for a, b in pairs])
    source = np.mean([a.split(":")[0] == b.split(":")[0] for a, b in pairs])
    print(
        f"{encoder.name}, {len(pairs)} images: class right {right:.3f}, source right {source:.3f}; "
        f"mean absolute mean {np.abs(data.clean.mean(0)).mean():.3f}, mean standard deviation "
        f"{data.clean.std(0).mean():.3f}, effective rank {effective_rank(data.clean):.0f}"
    )


def distortions(encoder: CompactEncoder, data: Fold, recipe: dict) -> None:
    """KID, FID, precision and coverage of graded distortions: mean over modalities."""
    columns = "quantity | KID | FID | precision | coverage"
    print(f"| distortion | {columns} | KID in {', '.join(data.modals)} |\n" + "|---" * 7 + "|")

    def line(kind: str, quantity: str, changed: np.ndarray) -> None:
        each = np.array(
            [row(data.clean[m], changed[m], data.groups[m]) for m in data.modals.values()]
        )
        kid, fid, precision, coverage = each.mean(0)
        print(
            f"| {kind} | {quantity} | {kid:.3f} | {fid:.1f} | {precision:.2f} | {coverage:.2f} | "
            f"{', '.join(f'{value:.3f}' for value in each[:, 0])} |",
            flush=True,
        )

    line("none (floor)", "", data.clean)
    for kind in DISTORTIONS:
        most = float(recipe[kind])
        for strength in STRENGTHS:
            changed = spoiled_features(encoder, data.images, kind, strength, recipe)
            quantity = most * strength**1.5
            if kind == "compression":
                quantity = 75 - most * strength
            elif kind == "foreign patch":
                quantity = most * strength
            line(kind, f"{quantity:.2f}", changed)


def contrasts(data: Fold) -> None:
    """KID of modalities and of classes of one source against each other."""
    print("KID between modalities")
    names = list(data.modals)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            kid = between(data.clean, data.modals[first], data.modals[second])
            print(f"| {first} | {second} | {kid:.2f} |")
    print("KID between classes of one source")
    classes = defaultdict(list)
    for index, name in enumerate(data.truth):
        classes[name].append(index)
    large = [name for name in sorted(classes) if len(classes[name]) >= LEAST]
    for number, first in enumerate(large):
        for second in large[number + 1 :]:
            if first.split(":")[0] == second.split(":")[0]:
                kid = between(data.clean, classes[first], classes[second])
                print(f"| {first} | {second} | {kid:.3f} |")


def main() -> None:
    """Print the tables."""
    config = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    encoder = CompactEncoder.load(config["out"])
    data = validation(config, encoder)
    heads(encoder, data)
    contrasts(data)
    distortions(encoder, data, config["distortions"])


def between(features: np.ndarray, first: list[int], second: list[int]) -> float:
    """KID between two groups of images, equally many drawn of each."""
    generator, size = np.random.default_rng(0), min(len(first), len(second))
    found = []
    for _ in range(SPLITS):
        drawn = (features[generator.choice(side, size, False)] for side in (first, second))
        found.append(kernel_distance(*drawn))
    return float(np.mean(found))


def effective_rank(features: np.ndarray) -> float:
    """Exponential of the entropy of the covariance's spectrum (Roy and Vetterli 2007)."""
    spectrum = np.linalg.eigvalsh(np.cov(features, rowvar=False)).clip(1e-12)
    shares = spectrum / spectrum.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


if __name__ == "__main__":
    main()

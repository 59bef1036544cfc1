"""Which projection a film is (PA or AP), for the captions of adult films whose source says nothing.

The network of `medgen.measure.view`, trained on the NIH films (view stated) and the cased films of
`split=train`. Run as `python -m medgen.measure.tabulate_views TABLE NIH_TABLE CASES OUT [WEIGHTS]`:
prints the AUC by 4-fold patient-grouped cross-validation per source, then writes `path,view` for
the confident films of `radiography_adult` labelled normal (they come from the NIH films' own
origin; on other sources the network is not good enough, see docs/experiments.md), and the first
network's weights to the folder WEIGHTS.
"""

from __future__ import annotations

import csv
import random
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import load_square, write_atomic
from medgen.measure.view import SIZE, save_view_network, standardised, view_network

PA_BELOW, AP_ABOVE = 0.15, 0.75
"""Under the first probability of AP a film is called PA, over the second AP; else unknown."""


def _augmented(films: Tensor, generator: torch.Generator) -> Tensor:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) - 0.5

    angle, scale = uniform(len(films)) * 0.25, 1 + uniform(len(films)) * 0.2
    theta = torch.zeros(len(films), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale * angle.cos(), -angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin(), scale * angle.cos()
    theta[:, :, 2] = uniform(len(films), 2) * 0.15
    grid = F.affine_grid(theta, list(films.shape), align_corners=False)
    moved = F.grid_sample(films, grid, padding_mode="border", align_corners=False)
    noise = torch.randn(moved.shape, generator=generator) * 0.1
    return moved * (1 + uniform(len(films), 1, 1, 1) * 0.4) + noise


def fit(films: Tensor, labels: Tensor, seed: int, epochs: int = 14) -> nn.Module:
    """Train one network on standardised films (n, 1, 64, 64) and labels (n,), 1 for AP."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = view_network()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - epoch / epochs)
        for rows in torch.randperm(len(films), generator=generator).split(32):
            if len(rows) < 4:
                continue
            logits = network(_augmented(films[rows], generator))[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits, labels[rows] * 0.9 + 0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@torch.inference_mode()
def _probabilities(networks: list[nn.Module], films: Tensor) -> np.ndarray:
    return np.mean([torch.sigmoid(network(films)[:, 0]).numpy() for network in networks], axis=0)


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    order = scores.argsort().argsort() + 1
    positive = int(labels.sum())
    negative = len(labels) - positive
    return float((order[labels == 1].sum() - positive * (positive + 1) / 2) / positive / negative)


def main(table: Path, nih: Path, cases: Path, out: Path, weights: Path | None = None) -> None:
    """Cross-validate, train on everything, and write the views of the adult normals."""
    rows = list(csv.DictReader(table.open(newline="")))
    by_path = {row["path"]: row for row in rows}
    films, labels, groups, sources = [], [], [], []
    for name, listing in (("nih_64", nih), ("ieee8023_covid", cases)):
        for row in csv.DictReader(listing.open(newline="")):
            known = by_path.get(row["path"])
            if name != "nih_64" and (known is None or known["split"] != "train"):
                continue
            films.append(load_square(table.parent / row["path"], SIZE)[..., 0])
            labels.append(float(row["view"] != "PA"))
            groups.append(name + (row["patient_id"] if known is None else known["group"]))
            sources.append(name)
    x, y, source = standardised(films), torch.tensor(labels), np.array(sources)
    names = sorted(set(groups))
    random.Random(0).shuffle(names)
    fold = np.array([names.index(group) % 4 for group in groups])
    scores = np.zeros(len(y))
    for k in range(4):
        network = fit(x[fold != k], y[fold != k], seed=k)
        scores[fold == k] = _probabilities([network], x[fold == k])
    for name in sorted(set(sources)):
        at = source == name
        print(f"{name}: AUC {_auc(y.numpy()[at], scores[at]):.3f}, {at.sum()} films")
        for word, called in (("PA", scores < PA_BELOW), ("AP", scores > AP_ABOVE)):
            right = (y.numpy()[at & called] == (word == "AP")).mean()
            share = called[at].mean()
            print(f"  called {word}: {share:.2f} of films, {right:.3f} of them rightly")
    networks = [fit(x, y, seed=10 + k) for k in range(2)]
    if weights is not None:
        save_view_network(networks[0], weights)
    adults = [r for r in rows if r["source"] == "radiography_adult" and r["label"] == "normal"]
    unknown = standardised([load_square(table.parent / r["path"], SIZE)[..., 0] for r in adults])
    ap = _probabilities(networks, unknown)
    buffer = StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["path", "view"])
    for row, value in zip(adults, ap, strict=True):
        if value < PA_BELOW or value > AP_ABOVE:
            writer.writerow([row["path"], "PA" if value < PA_BELOW else "AP"])
    write_atomic(out, buffer.getvalue())
    print(f"{(ap < PA_BELOW).sum()} PA and {(ap > AP_ABOVE).sum()} AP of {len(ap)} adult normals")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:6]))

"""Training of evaluation's CLIP: two projections over locked towers, minutes on one core.

Run as `python -m medgen.evaluation.train_clip configs/clip_evaluation.yaml`. Reader vectors of the
images and sentence vectors of many wordings of their labels are computed once; every pair that
agrees is a positive (Yang et al. 2022). Right captions are then set against wrong ones of the same
source on held-out images; the figures go into `card.yaml` beside the weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from medgen.data.images import write_atomic
from medgen.evaluation import reader
from medgen.evaluation.clip import LockedCLIP, Projections
from medgen.knowledge.cards import finding_cards
from medgen.knowledge.embedder import Embedder
from medgen.measure.statistics import auc, auc_interval, share_interval
from medgen.measure.train_clip import (
    MIN_AUC,
    MIN_CASES,
    Caption,
    Captions,
    caption_of,
    contrastive_loss,
    margins_within_sources,
)
from medgen.measure.train_reader import fold, read_table, sampling_weights


def read_config(path: str | Path) -> dict:
    """The configuration with the concepts it refers to, their words joined by card synonyms."""
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    shared = yaml.safe_load(Path(config["concepts_of"]).read_text(encoding="utf-8"))
    for key in ("concepts", "modality_phrases", "populations"):
        config[key] = shared[key]
    for name, concept in config["concepts"].items():
        card = finding_cards().get(concept["modality"], {}).get(name)
        if card is not None:
            more = [card.name, *card.synonyms]
            concept["words"] = list(dict.fromkeys([*concept["words"], *more]))
    return config


class Wordings:
    """Many captions of the table's classes, and which classes each is true of.

    `texts` are distinct; `truth` is (texts, kinds) bool; `kind` (n,) names each row's kind, which
    is its source, label and own text.
    """

    def __init__(self, config: dict, rows: list[dict[str, str]]) -> None:
        names = [f"{row['source']}|{row['label']}|{row['text']}" for row in rows]
        kinds, first, self.kind = np.unique(names, return_index=True, return_inverse=True)
        captions = Captions(config, [rows[i] for i in first])
        draws = np.random.default_rng(config["seed"])
        truth: dict[str, np.ndarray] = {}
        for origin in range(len(kinds)):
            seen: set[Caption] = set()
            for _ in range(config["captions_a_class"]):
                caption = captions.draw(origin, draws)
                if caption in seen:
                    continue
                seen.add(caption)
                agrees = [captions.agree(other, caption, origin) for other in range(len(kinds))]
                truth[caption.text] = truth.get(caption.text, False) | np.array(agrees)
        self.texts = list(truth)
        self.truth = np.stack(list(truth.values()))


def train(
    config: dict, rows: list[dict[str, str]], features: np.ndarray, embedder: Embedder
) -> LockedCLIP:
    """Train the projections.

    Args:
        config: As from `read_config`.
        rows: Training rows.
        features: (n, image) float32, `reader.features` of their images.
        embedder: The locked text tower.
    """
    torch.manual_seed(config["seed"])
    wordings = Wordings(config, rows)
    vectors = torch.from_numpy(embedder(wordings.texts))
    images = torch.from_numpy(features)
    truth = torch.from_numpy(wordings.truth)
    kind = torch.from_numpy(wordings.kind)
    fitting = [np.flatnonzero(column) for column in wordings.truth.T]
    model = Projections(**config["model"]).train()
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(rows)} images, {len(vectors)} texts", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), config["lr"], weight_decay=config["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=config["steps"], pct_start=0.1
    )
    draws = np.random.default_rng(config["seed"])
    weights = sampling_weights(rows)
    for step in range(config["steps"]):
        chosen = draws.choice(len(rows), config["batch"], p=weights)
        texts = np.array([draws.choice(fitting[k]) for k in wordings.kind[chosen]])
        similarity = model.images(images[chosen]) @ model.texts(vectors[texts]).T
        positive = truth[texts][:, kind[chosen]].T
        scale = model.logit_scale.exp().clamp(max=30.0)
        loss = contrastive_loss(scale * similarity, positive)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}/{config['steps']} loss {loss.item():.3f}", flush=True)
    return LockedCLIP(model, {"model": config["model"], "seed": config["seed"]})


def judge(
    config: dict, clip: LockedCLIP, rows: list[dict[str, str]], features: np.ndarray
) -> dict[str, dict]:
    """How often the right caption wins over those of the same source, by concept.

    `accuracy` is the mean of the share of images of the concept whose own caption fits best and
    the share of images of its contrasts where it does not, so chance is at most 0.5.
    """
    texts = clip.text_embeddings([caption_of(config, name) for name in config["concepts"]])
    found = margins_within_sources(config, rows, clip.project(features) @ texts.T)
    entries = {}
    for name, (source, right, wrong) in found.items():
        area, (low, high) = auc(right, wrong), auc_interval(right, wrong)
        won, lost = int((right > 0).sum()), int((wrong <= 0).sum())
        entries[name] = {
            "modality": config["concepts"][name]["modality"],
            "source": source,
            "caption": caption_of(config, name),
            "contrasts": [
                caption_of(config, other) for other in config["concepts"][name]["contrasts"]
            ],
            "with": len(right),
            "without": len(wrong),
            "auc": round(area, 4),
            "auc_interval": [round(low, 4), round(high, 4)],
            "right_caption_first": f"{won} of {len(right)}",
            "right_caption_first_interval": [
                round(bound, 4) for bound in share_interval(won, len(right))
            ],
            "not_first_on_contrasts": f"{lost} of {len(wrong)}",
            "accuracy": round((won / len(right) + lost / len(wrong)) / 2, 4),
            "measurable": bool(min(len(right), len(wrong)) >= MIN_CASES and low > MIN_AUC),
        }
    return entries


def main(path: str) -> None:
    """Train, judge on validation and test images, and write the weights and their card."""
    config = read_config(path)
    table = read_table(config["table"])
    packed = np.load(config["images"], mmap_mode="r")
    features = np.concatenate(
        [reader.features(np.array(packed[s : s + 64])) for s in range(0, len(packed), 64)]
    )
    folds = np.array([fold(row, config["fold_salt"]) for row in table])
    parts = {
        name: ([table[i] for i in np.flatnonzero(folds == name)], features[folds == name])
        for name in ("train", "val", "test")
    }
    train(config, *parts["train"], Embedder()).save(config["out"])
    clip = LockedCLIP.load(config["out"])
    card = {
        "source": f"python -m medgen.evaluation.train_clip {path}",
        "validation": {n: e["accuracy"] for n, e in judge(config, clip, *parts["val"]).items()},
        "concepts": judge(config, clip, *parts["test"]),
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=100)
    write_atomic(Path(config["out"]) / "card.yaml", text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])

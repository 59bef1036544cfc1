"""Training of the small CLIP on the table's captions and on varied wordings of their labels.

Run as `python -m medgen.measure.train_clip configs/clip.yaml`. Few distinct captions fill a batch,
so every (image, text) pair that agrees is a positive, not the diagonal alone (Yang et al. 2022,
unified contrastive learning). Afterwards the right caption is set against wrong captions of the
same source on held-out images; the figures go into `concepts.yaml` beside the weights.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from medgen.data.images import write_atomic
from medgen.measure.clip import CompactCLIP, build
from medgen.measure.reader import to_pixels
from medgen.measure.statistics import auc, auc_interval, fit_logistic
from medgen.measure.train_reader import augment, fold, read_table, sampling_weights

MIN_CASES = 30
MIN_AUC = 0.7


@dataclass(frozen=True)
class Caption:
    """One text: its concept (None for the table's own) and its population (None when unsaid)."""

    text: str
    concept: str | None
    population: str | None


class Captions:
    """Wordings of the table's rows, and which texts agree with which rows."""

    def __init__(self, config: dict, rows: list[dict[str, str]]) -> None:
        self.config = config
        self.rows = rows
        self.shown = [self._concepts(row) for row in rows]

    def _concepts(self, row: dict[str, str]) -> list[str]:
        return [
            name
            for name, concept in self.config["concepts"].items()
            if row["label"] in concept["rows"].get(row["source"], [])
        ]

    def draw(self, index: int, draws: np.random.Generator) -> Caption:
        """A random true caption of a row."""
        row, shown, config = self.rows[index], self.shown[index], self.config
        if not shown or draws.random() < config["table_caption_share"]:
            return Caption(row["text"], None, row["source"])
        name = shown[int(draws.integers(len(shown)))]
        words = {
            "finding": draws.choice(config["concepts"][name]["words"]),
            "modality": draws.choice(config["modality_phrases"][row["modal"]]),
        }
        population = config["populations"].get(row["source"])
        if population and draws.random() < 0.5:
            template = draws.choice(config["populated_templates"])
            words["population"] = draws.choice(population)
            return Caption(template.format(**words), name, population[0])
        return Caption(draws.choice(config["templates"]).format(**words), name, None)

    def agree(self, index: int, caption: Caption, origin: int) -> bool:
        """Whether a caption drawn for row `origin` is also true of row `index`."""
        row, other = self.rows[index], self.rows[origin]
        if caption.concept is None:
            return index == origin or (
                row["source"] == other["source"] and row["label"] == other["label"]
            )
        if row["modal"] != other["modal"] or caption.concept not in self.shown[index]:
            return False
        population = self.config["populations"].get(row["source"], [None])[0]
        return caption.population in (None, population)


def train_tokenizer(config: dict, rows: list[dict[str, str]]) -> Tokenizer:
    """A lower-case WordPiece vocabulary of the captions and wordings; the last id ends a text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordings = [
        text
        for group in (config["modality_phrases"], config["populations"])
        for texts in group.values()
        for text in texts
    ]
    wordings += [text for concept in config["concepts"].values() for text in concept["words"]]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config["vocabulary"] - 1, special_tokens=["[PAD]", "[UNK]"]
    )
    corpus = [row["text"] for row in rows] + wordings * 20
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def contrastive_loss(similarity: Tensor, positive: Tensor) -> Tensor:
    """Cross-entropy both ways of (n, n) scaled cosines against all agreeing pairs, (n, n) bool."""
    share = positive.float()
    rows = share / share.sum(1, keepdim=True)
    columns = share / share.sum(0, keepdim=True)
    image = -(rows * similarity.log_softmax(1)).sum(1).mean()
    text = -(columns * similarity.log_softmax(0)).sum(0).mean()
    return (image + text) / 2


def train(config: dict) -> CompactCLIP:
    """Train to `config["epochs"]` (averaged weights) and write the CLIP to `config["out"]`."""
    torch.manual_seed(config["seed"])
    table = read_table(config["table"])
    packed = np.load(config["images"], mmap_mode="r")
    indices = np.array([i for i, row in enumerate(table) if fold(row) == "train"])
    captions = Captions(config, [table[i] for i in indices])
    tokenizer = train_tokenizer(config, captions.rows)
    averaged = CompactCLIP(build(config["model"]), tokenizer, config["model"])
    model = build(config["model"]).train()
    averaged.model.load_state_dict(model.state_dict())
    weights = sampling_weights(captions.rows)
    batch = config["batch"]
    steps = math.ceil(len(indices) * config["epochs"] / batch)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size / 1e6:.2f} M parameters, {len(indices)} images, {steps} steps", flush=True)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in model.parameters() if p.ndim > 1],
                "weight_decay": config["weight_decay"],
            },
            {"params": [p for p in model.parameters() if p.ndim <= 1]},
        ],
        lr=config["lr"],
        weight_decay=0.0,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=steps, pct_start=0.1
    )
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(config["seed"])
    draws = np.random.default_rng(config["seed"])
    started, cpu = time.time(), time.process_time()
    for step in range(steps):
        chosen = draws.choice(len(indices), batch, p=weights)
        texts = [captions.draw(index, draws) for index in chosen]
        positive = torch.tensor(
            [
                [captions.agree(i, text, j) for j, text in zip(chosen, texts, strict=True)]
                for i in chosen
            ]
        )
        pixels = to_pixels(packed[indices[chosen]], averaged.size)
        pixels = augment(pixels, generator).contiguous(memory_format=torch.channels_last)
        image = model.encode_image(pixels, normalize=True)
        text = model.encode_text(averaged.tokens([t.text for t in texts]), normalize=True)
        scale = model.logit_scale.exp().clamp(max=50.0)
        loss = contrastive_loss(scale * image @ text.T, positive)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        _average(averaged.model, model, min(config["average"], (1 + step) / (10 + step)))
        if (step + 1) % 50 == 0:
            rate = (step + 1) * batch / (time.time() - started)
            print(
                f"step {step + 1}/{steps} loss {loss.item():.3f} scale {scale.item():.1f} "
                f"{rate:.0f} images/s {time.process_time() - cpu:.0f} CPU s",
                flush=True,
            )
    averaged.save(config["out"])
    return averaged


@torch.no_grad()
def _average(averaged: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    pairs = zip(averaged.state_dict().values(), model.state_dict().values(), strict=True)
    for mean, value in pairs:
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def caption_of(config: dict, name: str) -> str:
    """The caption by which a concept is measured: "<finding>, <modality>[ <population>]"."""
    concept = config["concepts"][name]
    modality = config["modality_phrases"][concept["modality"]][0]
    population = {"child": " of a child", "adult": " of an adult"}.get(
        concept.get("population"), ""
    )
    return f"{concept['words'][0]}, {modality}{population}"


def margins(
    config: dict, clip: CompactCLIP, rows: list[dict[str, str]], images: np.ndarray
) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Each concept's margins over its contrasts, inside the source that has most of both kinds.

    Args:
        config: The training configuration.
        clip: A trained CLIP.
        rows: Table rows.
        images: (n, H, H, 3) uint8, their images.

    Returns:
        By concept: the source, the margins of images that show it, and of those of the same
        source that show a contrast. Concepts without both are left out.
    """
    embedded = clip.image_embeddings(images)
    texts = clip.text_embeddings([caption_of(config, name) for name in config["concepts"]])
    return margins_within_sources(config, rows, embedded @ texts.T)


def margins_within_sources(
    config: dict, rows: list[dict[str, str]], similarities: np.ndarray
) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """`margins` from (n, concepts) cosines, in the order of `config["concepts"]`."""
    captions = Captions(config, rows)
    similarity = dict(zip(config["concepts"], similarities.T, strict=True))
    sources = np.array([row["source"] for row in rows])
    found = {}
    for name, concept in config["concepts"].items():
        contrasts = concept["contrasts"]
        if not contrasts:
            continue
        margin = similarity[name] - np.max([similarity[other] for other in contrasts], axis=0)
        shows = np.array([name in shown for shown in captions.shown])
        contrary = ~shows & np.array([bool(set(s) & set(contrasts)) for s in captions.shown])
        parts = [
            (
                str(source),
                margin[shows & (sources == source)],
                margin[contrary & (sources == source)],
            )
            for source in np.unique(sources)
        ]
        best = max(parts, key=lambda part: min(len(part[1]), len(part[2])))
        if len(best[1]) and len(best[2]):
            found[name] = best
    return found


def report(config: dict) -> None:
    """Set right captions against wrong ones on held-out images and write `concepts.yaml`.

    The least margin that speaks for a caption is set on the validation fold, where right and
    wrong weigh the same; AUC and shares are those of `split=test`.
    """
    clip = CompactCLIP.load(config["out"])
    table = read_table(config["table"])
    packed = np.load(config["images"], mmap_mode="r")
    by_fold = {}
    for part in ("val", "test"):
        indices = [i for i, row in enumerate(table) if fold(row) == part]
        by_fold[part] = margins(config, clip, [table[i] for i in indices], packed[indices])
    entries: dict[str, dict] = {}
    for name, concept in config["concepts"].items():
        entry = {
            "modality": concept["modality"],
            "text": caption_of(config, name),
            "contrasts": [caption_of(config, other) for other in concept["contrasts"]],
            "least": 0.0,
            "accuracy": "no contrast in its source",
            "measurable": False,
        }
        entries[name] = entry
        if name in by_fold["val"]:
            _, right, wrong = by_fold["val"][name]
            there = np.repeat([1, 0], [len(right), len(wrong)])
            intercept, slope = fit_logistic(np.concatenate([right, wrong]) * 10, there)
            if slope > 0:
                entry["least"] = round(float(np.clip(-intercept / slope / 10, -0.3, 0.3)), 4)
        if name not in by_fold["test"]:
            continue
        source, right, wrong = by_fold["test"][name]
        area, (low, high) = auc(right, wrong), auc_interval(right, wrong)
        entry["accuracy"] = (
            f"AUC {area:.2f} ({low:.2f}-{high:.2f}) within {source}, margin large enough in "
            f"{int((right > entry['least']).sum())} of {len(right)} with and "
            f"{int((wrong > entry['least']).sum())} of {len(wrong)} without, held out"
        )
        entry["measurable"] = bool(min(len(right), len(wrong)) >= MIN_CASES and low > MIN_AUC)
        print(name, entry["least"], entry["accuracy"], entry["measurable"], flush=True)
    document = {"source": "python -m medgen.measure.train_clip", "concepts": entries}
    write_atomic(
        Path(config["out"]) / "concepts.yaml",
        yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
    )


if __name__ == "__main__":
    settings = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "--report" not in sys.argv:
        train(settings)
    report(settings)

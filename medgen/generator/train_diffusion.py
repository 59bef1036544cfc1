"""Training of the compact latent-diffusion model: v-prediction, min-SNR, EMA, cached latents.

Run as `python -m medgen.generator.train_diffusion configs/diffusion.yaml`; a killed run goes on
from its last checkpoint. The learning rate is constant after warm-up and falls to zero over the
last part (`decay_from`), so that a longer run can start from the checkpoint before the fall.
Sources: Salimans and Ho 2022 (arXiv 2202.00512), Hang et al. 2023 (min-SNR, arXiv 2303.09556).
"""

from __future__ import annotations

import copy
import csv
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.data.splits import is_validation
from medgen.generator import captions, structured
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.checkpoints import load_checkpoint, save_checkpoint
from medgen.generator.conditioning import ConditionEncoder
from medgen.generator.text import CompactTextEncoder, TextTokenizer, train_tokenizer
from medgen.generator.unet import compact_unet
from medgen.knowledge.cards import finding_cards, modality_cards

Row = dict[str, str]


def read_rows(config: dict[str, Any]) -> list[Row]:
    """Rows of `split=train`, case data and measurements joined, with their image `index`."""
    joined: dict[str, Row] = defaultdict(dict)
    for path in config["joined"]:
        with Path(path).open(newline="") as stream:
            for row in csv.DictReader(stream):
                joined[row["path"]].update({k: v for k, v in row.items() if v})
    with Path(config["table"]).open(newline="") as stream:
        rows = [
            {**row, **joined[row["path"]], "index": str(index)}
            for index, row in enumerate(csv.DictReader(stream))
        ]
    return [row for row in rows if row["split"] == "train"]


def sampling_weights(rows: list[Row]) -> np.ndarray:
    """Square-root oversampling of modalities, and of classes inside each: weights that sum to 1."""

    def stratum(row: Row) -> tuple[str, str]:
        ratio = float(row.get("cardiothoracic_ratio") or 0)
        return row["modal"], f"{row['source']} {row['label']} {ratio > 0.505}"

    modals = Counter(row["modal"] for row in rows)
    strata = Counter(stratum(row) for row in rows)
    roots: Counter[str] = Counter()
    for (modal, _), count in strata.items():
        roots[modal] += count**0.5  # type: ignore[assignment]
    weights = np.array(
        [
            modals[row["modal"]] ** 0.5 * (strata[stratum(row)] ** -0.5 / roots[row["modal"]])
            for row in rows
        ]
    )
    return weights / weights.sum()


@torch.inference_mode()
def encode_latents(
    model: CompactAutoencoder, images: np.ndarray, indices: Iterable[int], seed: int | None
) -> np.ndarray:
    """Latents (n, 16, 16, 16) float16 of images; with a seed, slightly shifted and zoomed ones."""
    chosen, output = list(indices), []
    generator = torch.Generator().manual_seed(seed or 0)
    for start in range(0, len(chosen), 32):
        pixels = torch.from_numpy(images[chosen[start : start + 32]]).permute(0, 3, 1, 2)
        batch = pixels.float() / 127.5 - 1
        if seed is not None:
            noise = torch.rand(len(batch), 3, generator=generator) * 2 - 1
            theta = torch.zeros(len(batch), 2, 3)
            theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.05 * noise[:, 0]
            theta[:, :, 2] = 0.05 * noise[:, 1:]
            grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
            batch = F.grid_sample(batch + 1, grid, align_corners=False) - 1
        output.append(model.encode(batch).half().numpy())
    return np.concatenate(output)


class Trainee(nn.Module):
    """All that is trained: text encoder, condition encoder and U-Net."""

    def __init__(self, config: dict[str, Any], modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.text_encoder = CompactTextEncoder(**config["text_encoder"])
        width = config["text_encoder"]["width"]
        self.conditions = ConditionEncoder(modalities, text_width=width, **config["conditions"])
        self.unet = compact_unet(context_width=width, **config["unet"])

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        ids: Tensor,
        mask: Tensor,
        modality: Tensor,
        vector: Tensor,
    ) -> Tensor:
        """The predicted v of noisy latents (batch, 16, 16, 16) under their conditions."""
        states, pooled = self.text_encoder(ids, mask)
        context = self.conditions(states, mask, pooled, modality, vector)
        return self.unet(
            latents,
            times,
            encoder_hidden_states=context.states,
            encoder_attention_mask=context.mask,
            class_labels=context.pooled,
        ).sample


def draw_conditions(
    row: Row, dropout: dict[str, float], random_: random.Random
) -> tuple[str, str | None, dict[str, float | str]]:
    """A caption, a modality and structured conditions of a row, each of them sometimes dropped."""
    if random_.random() < dropout["all"]:
        return "", None, {}
    text = "" if random_.random() < dropout["text"] else captions.caption(row, random_)
    modal = None if random_.random() < dropout["modality"] else row["modal"]
    conditions = captions.structured_conditions(row)
    if random_.random() < dropout["structured"]:
        conditions = {}
    kept = {k: v for k, v in conditions.items() if random_.random() >= dropout["structured_each"]}
    return text, modal, kept


def _tokenizer(config: dict[str, Any], rows: list[Row], path: Path) -> TextTokenizer:
    length = config["text_encoder"]["length"]
    if not path.exists():
        random_ = random.Random(config["seed"])
        texts = [captions.caption(row, random_) for row in rows for _ in range(2)]
        for cards in finding_cards().values():
            for card in cards.values():
                names = [card.name, *card.synonyms, *card.abbreviations]
                texts += (names + card.signs) * 20
        for modality in modality_cards().values():
            texts += [modality.name, *modality.aliases, modality.negative_prompt] * 20
            texts += [region.name for region in modality.regions] * 20
        tokenizer = train_tokenizer(texts, config["text_encoder"]["vocabulary_size"])
        write_atomic(path, tokenizer.to_str(pretty=True))
    return TextTokenizer.load(path, length)


def save_generator(
    folder: Path,
    model: Trainee,
    autoencoder: CompactAutoencoder,
    tokenizer: TextTokenizer,
    description: dict[str, Any],
) -> None:
    """Write the folder that `CompactGenerator` loads, in fp16 safetensors."""
    parts = {name: getattr(model, name) for name in ("text_encoder", "conditions", "unet")}
    for name, part in {**parts, "autoencoder": autoencoder}.items():
        # A copy: halving in place would round the running average at each save.
        copy.deepcopy(part).half().save_pretrained(folder / name)
    write_atomic(folder / "tokenizer" / "tokenizer.json", tokenizer.tokenizer.to_str(pretty=True))
    DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        lambda_min_clipped=-5.1,
    ).save_pretrained(folder / "scheduler")
    write_atomic(folder / "generator.json", json.dumps(description, indent=1))


def train(config: dict[str, Any]) -> None:
    """Train to `config["steps"]`; checkpoints and the generator's folder go to `config["out"]`."""
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])
    everything = read_rows(config)
    rows = [row for row in everything if not is_validation(row["group"])]
    held_out = [row for row in everything if is_validation(row["group"])]
    weights = sampling_weights(rows)
    modalities = tuple(sorted({row["modal"] for row in rows}))
    tokenizer = _tokenizer(config, rows, out / "tokenizer.json")
    config["text_encoder"]["vocabulary_size"] = tokenizer.tokenizer.get_vocab_size()

    autoencoder = CompactAutoencoder.from_pretrained(config["autoencoder"]).eval()
    cache = out / "latents.npz"
    if not cache.exists():
        images = np.load(config["images"], mmap_mode="r")
        arrays = {
            f"train{n}": encode_latents(
                autoencoder, images, [int(r["index"]) for r in rows], None if n == 0 else n
            )
            for n in range(config["augmented_copies"] + 1)
        }
        arrays["held_out"] = encode_latents(
            autoencoder, images, [int(r["index"]) for r in held_out], None
        )
        np.savez(cache, allow_pickle=False, **arrays)
    arrays = dict(np.load(cache))
    copies = np.stack([arrays[f"train{n}"] for n in range(config["augmented_copies"] + 1)])
    flat = torch.from_numpy(copies[0].astype(np.float32))
    mean, std = flat.mean((0, 2, 3), keepdim=True), flat.std((0, 2, 3), keepdim=True)
    description = {
        "size": 256,
        "latents_mean": mean.flatten().tolist(),
        "latents_std": std.flatten().tolist(),
        "color_modalities": sorted(c.name for c in modality_cards().values() if c.color),
    }

    model, average = Trainee(config, modalities), Trainee(config, modalities)
    average.load_state_dict(model.state_dict())
    average.eval()
    for name in ("text_encoder", "conditions", "unet"):
        count = sum(p.numel() for p in getattr(model, name).parameters())
        print(f"{name}: {count / 1e6:.2f} M parameters", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config["lr"], betas=(0.9, 0.99), weight_decay=0.01
    )
    noise_scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )
    checkpoint = out / "last.pt"
    step = load_checkpoint(checkpoint, model, average, optimizer)

    def batch_loss(
        net: Trainee, latents: Tensor, chosen: list[Row], dropout: dict[str, float], key: list[int]
    ) -> Tensor:
        random_ = random.Random(str(key))
        drawn = [draw_conditions(row, dropout, random_) for row in chosen]
        ids, mask = tokenizer([text for text, _, _ in drawn])
        modality = net.conditions.modality_ids([modal for _, modal, _ in drawn])
        vector = structured.encode([conditions for _, _, conditions in drawn])
        generator = torch.Generator().manual_seed(random_.getrandbits(60))
        clean = (latents - mean) / std
        clean = clean + config["latent_noise"] * torch.randn(clean.shape, generator=generator) / std
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, 1000, (len(clean),), generator=generator)
        noisy = noise_scheduler.add_noise(clean, noise, times)
        target = noise_scheduler.get_velocity(clean, noise, times)
        error = (net(noisy, times, ids, mask, modality, vector) - target).square().mean((1, 2, 3))
        alpha = noise_scheduler.alphas_cumprod[times]
        ratio = alpha / (1 - alpha)
        # Min-SNR's cap alone: its factor SNR / (SNR + 1) would leave next to nothing of the
        # noisiest steps, where the outline of a 16x16 latent is decided.
        return (error * (ratio + 1).clamp(max=config["min_snr"]) / (ratio + 1)).mean()

    started, seen, total = time.time(), 0, 0.0
    while step < config["steps"]:
        key = [config["seed"], step]
        torch.manual_seed(hash(tuple(key)) % 2**63)  # the text encoder's dropout
        generator = np.random.default_rng(key)
        picks = generator.choice(len(rows), config["batch"], p=weights)
        versions = generator.integers(0, len(copies), len(picks))
        latents = torch.from_numpy(copies[versions, picks].astype(np.float32))
        decay_from = config["decay_from"] * config["steps"]
        fall = max(0.0, (step - decay_from) / max(1.0, config["steps"] - decay_from))
        for group in optimizer.param_groups:
            group["lr"] = config["lr"] * min(1.0, (step + 1) / config["warmup"]) * (1 - fall)
        loss = batch_loss(model, latents, [rows[i] for i in picks], config["dropout"], key)
        if not torch.isfinite(loss):
            raise SystemExit(
                f"loss is {loss.item()} at step {step}: lower lr; {checkpoint} is kept"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        seen += len(picks)
        total += loss.item()
        decay = min(config["ema"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        if step % 50 == 0:
            speed = seen / (time.time() - started)
            print(f"step {step} loss {total / 50:.4f} {speed:.1f} images/s", flush=True)
            total = 0.0
        if step % config["save_every"] == 0 or step == config["steps"]:
            with torch.inference_mode():
                known = torch.from_numpy(arrays["held_out"].astype(np.float32))
                none = dict.fromkeys(config["dropout"], 0.0)
                size = 64
                losses = [
                    batch_loss(average, known[i : i + size], held_out[i : i + size], none, [1, i])
                    for i in range(0, len(held_out), size)
                ]
            print(f"  held-out loss {torch.stack(losses).mean():.4f}", flush=True)
            save_checkpoint(checkpoint, model, average, optimizer, step)
            save_generator(out / "generator", average, autoencoder, tokenizer, description)


if __name__ == "__main__":
    train(yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8")))

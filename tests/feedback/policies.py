"""What tests of policy training share: a tiny generator, and a log of bright and dark squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from medgen.data.images import pixel_sha256, save_synthetic_png
from medgen.feedback.log import FeedbackLog
from medgen.feedback.policy_config import PolicyConfig
from medgen.feedback.records import LoggedCandidate, Rating
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.objective import Objective
from medgen.generator.training.trainee import Trainee, save_generator
from medgen.generator.training.vocabulary import text_parts
from medgen.records import Candidate, Conditioning

MODALITIES = ("Brain MRI", "Fundus")
SIDE = 64


def tiny_generator(folder: Path) -> Path:
    """An untrained compact generator of 64x64 pictures, which trains in seconds."""
    torch.manual_seed(0)
    dropout = dict.fromkeys(("all", "text", "modality", "structured", "structured_each"), 0.0)
    config = TrainingConfig(
        table=folder, out=folder, steps=1, batch=1, lr=1e-3, decay_from=0.5, autoencoder=folder,
        dropout=dropout,
        text_encoder={"vocabulary_size": 300, "length": 16, "width": 32, "layers": 1, "heads": 2,
                      "dropout": 0.0},
        conditions={"structured_tokens": 1, "pooled_width": 32},
        unet={"channels": [16, 16, 32], "groups": 8, "heads": 2},
    )  # fmt: skip
    tokenizer, text = text_parts(folder / "tokenizer.json", config, [])
    trainee = Trainee(config, MODALITIES, text, SIDE // 16)
    autoencoder = CompactAutoencoder(channels=(16, 16, 16))
    description = {
        "size": SIDE,
        "latents_mean": [0.0] * 16,
        "latents_std": [0.2] * 16,
        "color_modalities": ["Fundus"],
    }
    sampler = Objective(config.objective).sampler()
    save_generator(folder / "generator", trainee, autoencoder, tokenizer, sampler, description)
    return folder / "generator"


def squares_log(
    folder: Path,
    prompts: int = 8,
    bright_is_better: bool = True,
    aims: dict[str, dict[str, list[str]]] | None = None,
) -> FeedbackLog:
    """A log in which raters like bright squares (5) and not dark ones (1), four a prompt.

    Each dark one has a bright one of its noise. With `aims`, by modality, all prompts of it ask for
    the same, and bright ones were steered.
    """
    log = FeedbackLog(folder / "log.sqlite")
    random_ = np.random.default_rng(0)
    for number in range(prompts):
        modality = MODALITIES[number % 2]
        prompt = f"finding {number}, {modality}"
        for index in range(4):
            bright = index % 2 == 1
            pixels = random_.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[16:48, 16:48] = 230 if bright else 90
            steered = (aims or {}).get(modality, {}) if bright else {}
            told = modality if aims else prompt
            path = folder / f"{number}-{index}.png"
            save_synthetic_png(path, pixels)
            candidate = LoggedCandidate(
                run=f"run-{number}",
                prompt=prompt,
                modality=modality,
                image_sha256=pixel_sha256(path),
                chosen=False,
                drawn=Candidate(
                    id=f"image0-round1-{index}",
                    round=1,
                    image=str(path),
                    conditioning=Conditioning(
                        prompt=told, modality=modality, seed=number * 2 + index // 2, aims=steered
                    ),
                ),
            )
            good = 5 if bright == bright_is_better else 1
            log.append_records([candidate, rating_of(candidate, good)])
    return log


def rating_of(candidate: LoggedCandidate, value: int, rater: str = "ann") -> Rating:
    """A person's rating."""
    return Rating(
        rater=rater, source="human", image_sha256=candidate.image_sha256, rating=value,
        image_path=candidate.image_path, prompt=candidate.prompt, modality=candidate.modality,
    )  # fmt: skip


def policy(folder: Path, generator: Path, log: FeedbackLog, **changes: object) -> PolicyConfig:
    """A training of a few steps."""
    given: dict[str, object] = {
        "log": log.name, "generator": generator, "out": folder / "policy", "steps": 12,
        "batch": 8, "lr": 0.01, "warmup": 1, "rank": 4, "alpha": 4, "save_every": 4,
        "log_every": 1, "held_out_percent": 25, "condition_dropout": 0.0, "patience": 99,
        "fidelity_tolerance": 99.0, "targets": ["to_q", "to_v", r"to_out\.0", "conv1", "conv2"],
    }  # fmt: skip
    return PolicyConfig.model_validate({**given, **changes})

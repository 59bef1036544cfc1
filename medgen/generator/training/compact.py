"""Training of the compact generator: its two encoders and its U-Net, on cached latents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from medgen.errors import BadInput
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.compact import CompactGenerator
from medgen.generator.training.batches import Batch, Batches, Latents, batch_loss
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.latents import FreshLatents, hash_weights, keep_latents
from medgen.generator.training.objective import Objective
from medgen.generator.training.pictures import PackedPictures, PictureFiles, Pictures
from medgen.generator.training.row_index import RowIndex, index_rows
from medgen.generator.training.rows import may_be_mirrored
from medgen.generator.training.samples import draw_grid
from medgen.generator.training.trainee import Trainee, read_start, save_generator, start_from
from medgen.generator.training.vocabulary import text_parts
from medgen.generator.unet import cost
from medgen.knowledge.cards import modality_cards


class CompactTraining:
    """The `Task` of a `TrainingConfig`."""

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, say: Callable[[str], None]
    ) -> None:
        self.config = config
        cache = config.cache or config.out
        with accelerator.main_process_first():
            rows, held_out = index_rows(config.table, config.joined, cache).folds()
        if not len(rows):
            raise BadInput(f"{config.table}: every training row is in the validation fold")
        start = read_start(config.init_from) if config.init_from else None
        present = {row["modal"] for row in rows}
        known = start.modalities if start else ()
        modalities = (*known, *sorted(present - set(known)))
        kept = start.tokenizer if start else None
        path = config.tokenizer or kept or config.out / "tokenizer.json"
        self.autoencoder = CompactAutoencoder.from_pretrained(
            config.autoencoder, use_safetensors=True
        ).eval()
        self.autoencoder.to(accelerator.device)
        with accelerator.main_process_first():
            latents = self._latents(rows, config.augmented_copies)
            held_out_latents = self._latents(held_out, None) if len(held_out) else None
            torch.manual_seed(config.seed)
            self.tokenizer, text_encoder = text_parts(path, config, rows)
        if start and start.description:
            # Trained weights expect the standardisation they were trained with.
            mean, std = (
                torch.tensor(start.description[name]).view(-1, 1, 1)
                for name in ("latents_mean", "latents_std")
            )
            latents.mean, latents.std = mean, std
        self.description = _description(self.size, latents)
        self.model = Trainee(config, modalities, text_encoder, self.size // 16)
        _tell(self.model, say)
        if start:
            new = start_from(self.model, start)
            added = f"; new parts: {', '.join(new)}" if new else ""
            say(f"starts from {start.source}{added}")
        self.average = copy.deepcopy(self.model).eval()
        self.batches = Batches(
            config,
            rows,
            held_out,
            latents,
            held_out_latents,
            self.tokenizer,
            self.model.conditions,
        )

    def _pictures(self, rows: RowIndex) -> Pictures:
        config = self.config
        if config.images is not None:
            return PackedPictures(config.images, rows)
        return PictureFiles(rows, config.size, config.fit, config.workers)

    def _latents(self, rows: RowIndex, copies: int | None) -> Latents:
        """Latents of rows, never augmented where copies is null."""
        config, pictures = self.config, self._pictures(rows)
        self.size = pictures.size
        if self.size % 16:
            raise BadInput(f"pictures of {self.size} pixels do not fit: a multiple of 16 is needed")
        flips = (config.flips and may_be_mirrored(row) for row in rows)
        may = np.fromiter(flips, bool, len(rows))
        if config.latents == "fresh":
            return FreshLatents(self.autoencoder, pictures, len(rows), may)
        return keep_latents(
            config.cache or config.out,
            self.autoencoder,
            pictures,
            len(rows),
            copies or 0,
            may,
            hash_weights(config.autoencoder),
        )

    def batch(self, step: int) -> Batch:
        """See `Task.batch`."""
        return self.batches.training(step)

    def held_out(self) -> Iterator[Batch]:
        """See `Task.held_out`."""
        return self.batches.held_out()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Task.loss`."""
        return batch_loss(model(*batch[:6]), batch)

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """See `Task.weights`."""
        return cast(Trainee, module).weights()

    def load(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """See `Task.load`."""
        cast(Trainee, module).load_weights(weights)

    def architecture(self) -> dict[str, Any]:
        """See `Task.architecture`."""
        return self.model.architecture()

    def write(self, folder: Path) -> None:
        """See `Task.write`."""
        save_generator(
            folder,
            self.average,
            self.autoencoder,
            self.tokenizer,
            Objective(self.config.objective).sampler(),
            self.description,
        )

    def draw(self, folder: Path, path: Path) -> None:
        """See `Task.draw`."""
        samples = self.config.samples
        assert samples is not None
        generator = CompactGenerator(
            folder, steps=samples.steps, guidance_scale=samples.guidance, micro_batch=4
        )
        draw_grid(generator, samples, path)


def _tell(model: Trainee, say: Callable[[str], None]) -> None:
    for name in ("text_encoder", "conditions"):
        count = sum(p.numel() for p in getattr(model, name).parameters())
        say(f"{name}: {count / 1e6:.2f} M parameters")
    figures = cost(model.unet)
    for part, count in figures["parameters"].items():
        name = "unet" if part == "total" else f"unet, of it {part}"
        flops = figures["flops"][part] / 1e9
        say(f"{name}: {count / 1e6:.2f} M parameters, {flops:.3f} GFLOPs a picture and step")


def _description(size: int, latents: Latents) -> dict[str, Any]:
    return {
        "size": size,
        "latents_mean": latents.mean.flatten().tolist(),
        "latents_std": latents.std.flatten().tolist(),
        "color_modalities": sorted(c.name for c in modality_cards().values() if c.color),
    }

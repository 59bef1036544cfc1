"""Fine-tuning of a Stable-Diffusion-family U-Net: whole, or an adapter over the frozen one.

Autoencoder and text encoders stay as they are; prediction and noise schedule are the base's own.
What comes out is MINIM's layout, a `unet/` beside its base, or a LoRA file, with a record of where
it comes from.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from pydantic import ValidationError
from torch import Tensor, nn

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.generator import captions
from medgen.generator.checkpoints import writing_folder
from medgen.generator.diffusers_backend import (
    LINEAGE,
    DiffusersGenerator,
    base_folder,
    hash_files,
    load_pipeline,
)
from medgen.generator.training.adapters import (
    adapter_weights,
    add_adapter,
    load_adapter_weights,
)
from medgen.generator.training.config import FinetuningConfig, ObjectiveConfig
from medgen.generator.training.moments import KeptMoments, keep_moments
from medgen.generator.training.objective import Objective
from medgen.generator.training.pictures import PictureFiles
from medgen.generator.training.row_index import RowIndex, index_rows
from medgen.generator.training.rows import Draws
from medgen.generator.training.samples import draw_grid

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
HELD_OUT_BATCH = 8


@dataclass(frozen=True)
class FinetuningBatch:
    """Clean latents, their noise and times, and what is said of each picture."""

    clean: Tensor
    noise: Tensor
    times: Tensor
    texts: tuple[str, ...]

    @property
    def size(self) -> int:
        """Pictures in it."""
        return len(self.times)

    def part(self, index: int, count: int) -> FinetuningBatch:
        """The `index`-th of `count` equal parts."""
        size = self.size // count
        chosen = slice(index * size, (index + 1) * size)
        return FinetuningBatch(
            self.clean[chosen], self.noise[chosen], self.times[chosen], self.texts[chosen]
        )

    def to(self, device: torch.device) -> FinetuningBatch:
        """The same on a device."""
        return FinetuningBatch(
            self.clean.to(device), self.noise.to(device), self.times.to(device), self.texts
        )


class Finetuning:
    """The `Task` of a `FinetuningConfig`."""

    def __init__(
        self, config: FinetuningConfig, accelerator: Accelerator, say: Callable[[str], None]
    ) -> None:
        self.config, self.accelerator = config, accelerator
        cache = config.cache or config.out
        with accelerator.main_process_first():
            self.rows, held_out = index_rows(config.table, config.joined, cache).folds()
        if not len(self.rows):
            raise BadInput(f"{config.table}: every training row is in the validation fold")
        self.held_out_rows = held_out[: config.held_out]
        self.folder = base_folder(config.base)
        self.pipeline: Any = load_pipeline(self.folder, "base", torch.float32)
        if not all(hasattr(self.pipeline, part) for part in ("unet", "vae", "text_encoder")):
            raise BadInput(f"base: {config.base} is no Stable Diffusion 1.x, 2.x or SDXL")
        self.base_unet = hash_files(self.folder / "unet")
        self.objective = _objective(self.pipeline, config)
        vae, dtype = self.pipeline.vae.to(accelerator.device), DTYPES[config.precision]
        with accelerator.main_process_first():
            self.moments = self._moments(self.rows)
            self.held_out_moments = (
                self._moments(self.held_out_rows) if len(self.held_out_rows) else None
            )
        for name in ("vae", "text_encoder", "text_encoder_2"):
            part = getattr(self.pipeline, name, None)
            if part is not None:
                part.requires_grad_(False).to(accelerator.device, dtype)
        self.scale = float(vae.config.scaling_factor)
        self.model: nn.Module = self.pipeline.unet
        torch.manual_seed(config.seed)
        self.average: Any = None
        if config.method == "full":
            self.average = copy.deepcopy(self.model).eval()
        else:
            add_adapter(self.model, config, accelerator.device, dtype)
        if config.gradient_checkpointing:
            self.pipeline.unet.enable_gradient_checkpointing()
        self.draws = Draws(self.rows, config.seed, config.batch)
        count = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        say(f"{config.method}: {count / 1e6:.3f} M parameters are trained")

    def _moments(self, rows: RowIndex) -> KeptMoments:
        config, unet = self.config, self.pipeline.unet
        step = self.pipeline.vae_scale_factor
        size = config.size or unet.config.sample_size * step
        if size % (step * 2 ** (len(unet.config.block_out_channels) - 1)):
            raise BadInput(f"size: {size} pixels cannot be halved as often as the U-Net does")
        self.size = size
        pictures = PictureFiles(rows, size, config.fit, config.workers)
        weights = hash_files(self.folder / "vae")
        return keep_moments(
            config.cache or config.out, self.pipeline.vae, weights, pictures, len(rows)
        )

    def batch(self, step: int) -> FinetuningBatch:
        """See `Task.batch`."""
        picks, _ = self.draws.of(step)
        numbers, key = picks.tolist(), str([self.config.seed, step])
        random_ = random.Random(key)
        texts = [captions.caption(self.rows[i], random_) for i in numbers]
        dropped = [random_.random() < self.config.caption_dropout for _ in texts]
        heard = ["" if drop else text for text, drop in zip(texts, dropped, strict=True)]
        return self._batch(self.moments, numbers, heard, random_)

    def held_out(self) -> Iterator[FinetuningBatch]:
        """See `Task.held_out`."""
        if self.held_out_moments is None:
            return
        count = len(self.held_out_rows)
        for start in range(0, count, HELD_OUT_BATCH):
            numbers = list(range(start, min(count, start + HELD_OUT_BATCH)))
            random_ = random.Random(str([1, start]))
            texts = [captions.caption(self.held_out_rows[i], random_) for i in numbers]
            yield self._batch(self.held_out_moments, numbers, texts, random_)

    def _batch(
        self, moments: KeptMoments, numbers: list[int], texts: list[str], random_: random.Random
    ) -> FinetuningBatch:
        generator = torch.Generator().manual_seed(random_.getrandbits(60))
        clean = moments.draw(numbers, generator) * self.scale
        noise = torch.randn(clean.shape, generator=generator)
        steps = self.objective.scheduler.config.num_train_timesteps
        times = torch.randint(0, steps, (len(clean),), generator=generator)
        return FinetuningBatch(clean, noise, times, tuple(texts))

    def loss(self, model: nn.Module, batch: FinetuningBatch) -> Tensor:
        """See `Task.loss`."""
        states, added = self._heard(list(batch.texts))
        noisy = self.objective.noisy(batch.clean, batch.noise, batch.times)
        predicted = model(
            noisy.to(states.dtype),
            batch.times,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
        ).sample
        target = self.objective.target(batch.clean, batch.noise, batch.times)
        error = (predicted.float() - target).square().mean((1, 2, 3))
        weights = self.objective.weights(batch.times.cpu()).to(error.device)
        return (error * weights).mean()

    @torch.no_grad()
    def _heard(self, texts: list[str]) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Token states, and for SDXL what it hears beside them."""
        encoded = self.pipeline.encode_prompt(
            prompt=texts,
            device=self.accelerator.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if getattr(self.pipeline, "text_encoder_2", None) is None:
            return encoded[0], None
        states, pooled = encoded[0], encoded[2]
        if self.pipeline.config.force_zeros_for_empty_prompt:
            # So SDXL draws without a prompt.
            given = torch.tensor([bool(text) for text in texts], device=states.device)
            states, pooled = states * given[:, None, None], pooled * given[:, None]
        place = torch.tensor([self.size, self.size, 0, 0, self.size, self.size])
        ids = place.to(states.device, states.dtype).repeat(len(texts), 1)
        return states, {"text_embeds": pooled, "time_ids": ids}

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """See `Task.weights`."""
        return module.state_dict() if self.config.method == "full" else adapter_weights(module)

    def load(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """See `Task.load`."""
        if self.config.method == "full":
            module.load_state_dict(weights)
        else:
            load_adapter_weights(module, weights)

    def architecture(self) -> dict[str, Any]:
        """See `Task.architecture`."""
        config = self.config
        shared: dict[str, Any] = {"method": config.method, "base": self.base_unet}
        if config.method != "full":
            shared |= {"rank": config.rank, "alpha": config.alpha, "targets": config.targets}
        return shared

    def write(self, folder: Path) -> None:
        """See `Task.write`."""
        with writing_folder(folder) as new:
            if self.average is not None:
                copy.deepcopy(self.average).half().save_pretrained(new / "unet")
            else:
                type(self.pipeline).save_lora_weights(
                    new,
                    unet_lora_layers=adapter_weights(self.model),
                    unet_lora_adapter_metadata=self.pipeline.unet.peft_config["default"].to_dict(),
                )
            write_atomic(new / LINEAGE, json.dumps(self._lineage(), indent=1))

    def _lineage(self) -> dict[str, Any]:
        local = Path(self.config.base)
        return {
            "base": str(local.resolve()) if local.is_dir() else self.config.base,
            "base_unet": self.base_unet,
            "config": self.config.model_dump(mode="json"),
        }

    def draw(self, folder: Path, path: Path) -> None:
        """See `Task.draw`."""
        samples = self.config.samples
        assert samples is not None
        drawing = self.model if self.average is None else self.average
        self.pipeline.register_modules(unet=drawing.eval())
        generator = DiffusersGenerator(
            self.pipeline.to(self.accelerator.device),
            name=folder.name,
            fingerprint="",
            steps=samples.steps,
            guidance_scale=samples.guidance,
        )
        with self.accelerator.autocast():
            draw_grid(generator, samples, path)
        self.pipeline.register_modules(unet=self.model)


def _objective(pipeline: Any, config: FinetuningConfig) -> Objective:
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    own = scheduler.config
    try:
        weighting = ObjectiveConfig(
            prediction=own.prediction_type,
            schedule=own.beta_schedule,
            weighting=config.weighting,
            snr_limit=config.snr_limit,
        )
    except ValidationError as error:
        raise BadInput(
            f"base: {config.base} predicts {own.prediction_type}, {own.beta_schedule} schedule: "
            "only noise-predicting and v-predicting diffusion can be trained on"
        ) from error
    return Objective(weighting, scheduler)

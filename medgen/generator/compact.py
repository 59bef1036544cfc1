"""The compact backend: the bundled latent-diffusion model, sampled on a laptop.

Loads a folder (autoencoder, U-Net, condition and text encoders, tokenizer, scheduler) and draws
with classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598); samplers and schedules of
guidance are those of `sampling`. The same seed gives the same bytes on one kind of processor
whatever is drawn beside it: noise is per sample and the batch shape is fixed. Knows no plan, check
or user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from medgen.data.images import load_square
from medgen.errors import BadInput, MedgenError
from medgen.generator import structured
from medgen.generator.adapter import base_hash, merge_adapter
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.conditioning import ConditionEncoder, Context, join_contexts
from medgen.generator.pretrained_text import TEXT_ENCODER, load_pretrained_text
from medgen.generator.sampling import (
    DEFAULT_STRENGTH,
    Levels,
    Sampling,
    blend,
    bounded,
    latent_mask,
)
from medgen.generator.steering import Steering, steering_reader
from medgen.generator.text import CompactTextEncoder, TextTokenizer
from medgen.generator.unet import MedicalUNet
from medgen.records import Conditioning


class Way(NamedTuple):
    """What pictures of one batch must share; each batch has one shape, so that bytes repeat."""

    steps: int
    branches: tuple[Literal["without", "given", "opposite"], ...]
    strength: float | None
    masked: bool
    steered: bool


def fingerprint_folder(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 over a folder's safetensors and JSON files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json"):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class CompactGenerator:
    """Text, modality and numbers in; 256x256 pictures out (see `Generator`)."""

    reads_free_text = False
    steers = True

    def __init__(
        self,
        folder: str | Path,
        *,
        steps: int,
        guidance_scale: float,
        micro_batch: int,
        number_guidance: float = 0.0,
        sampling: Sampling | None = None,
        adapter: Path | None = None,
    ) -> None:
        folder = Path(folder)
        description = folder / "generator.json"
        if not description.is_file():
            raise BadInput(
                f"no compact generator in {folder} (generator.json is missing): "
                "unset MEDGEN_WEIGHTS to use the bundled one"
            )
        settings = json.loads(description.read_text(encoding="utf-8"))
        try:
            self.autoencoder = _load(CompactAutoencoder, folder / "autoencoder")
            self.unet = _load(MedicalUNet, folder / "unet")
            self.conditions = _load(ConditionEncoder, folder / "conditions")
            self.tokenizer, self.text = _load_text(folder)
            self.scheduler_config = DPMSolverMultistepScheduler.load_config(folder / "scheduler")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise MedgenError(f"cannot load the generator in {folder}: {reason}") from error
        self.mean = torch.tensor(settings["latents_mean"]).view(1, -1, 1, 1)
        self.std = torch.tensor(settings["latents_std"]).view(1, -1, 1, 1)
        self.size: int = settings["size"]
        self.color = set(settings["color_modalities"])
        self.modalities: tuple[str, ...] = tuple(self.conditions.config.modalities)
        self.fingerprint = fingerprint_folder(folder)
        self.name = f"compact:{self.fingerprint}"
        self.adapter = ""
        if adapter is not None:
            self.adapter = merge_adapter(self.unet, adapter, base_hash(folder)).id
            self.name = f"{self.name}+{self.adapter}"
            self.fingerprint = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.micro_batch = micro_batch
        self.number_guidance = number_guidance
        self.sampling = sampling or Sampling()

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        """See `Generator.sample`: (n, 256, 256, 3) uint8.

        An empty prompt draws by the modality alone, a guidance scale of 0 by the negative prompt
        alone, and an empty modality whatever the model holds most likely.
        """
        images = np.zeros((len(conditionings), self.size, self.size, 3), dtype=np.uint8)
        groups: dict[Way, list[int]] = {}
        for index, conditioning in enumerate(conditionings):
            groups.setdefault(self.batch_key(conditioning), []).append(index)
        for way, members in groups.items():
            for start in range(0, len(members), self.micro_batch):
                chosen = members[start : start + self.micro_batch]
                padded = chosen + [chosen[0]] * (self.micro_batch - len(chosen))
                pixels = self._draw([conditionings[index] for index in padded], way)
                images[chosen] = pixels[: len(chosen)]
        return images

    def batch_key(self, conditioning: Conditioning) -> Way:
        """What a picture must share with others to be drawn in one batch with them.

        Raises:
            BadInput: It cannot be drawn at all.
        """
        if conditioning.modality and conditioning.modality not in self.modalities:
            raise BadInput(
                f"{self.name} cannot draw {conditioning.modality}: it can draw "
                + ", ".join(self.modalities)
            )
        if conditioning.mask_image and not conditioning.init_image:
            raise BadInput("mask_image needs init_image: the picture that is kept outside the mask")
        strength = None
        if conditioning.init_image:
            strength = conditioning.strength
            strength = DEFAULT_STRENGTH if strength is None else strength
            if not 0 < strength <= 1:
                raise BadInput(f"strength {strength} is not in (0, 1]")
        scale = self._scale(conditioning)
        if conditioning.aims:
            self.steering.check(conditioning.aims)
        branches: list[Literal["without", "given", "opposite"]] = []
        if scale != 1:
            branches.append("without")
        if scale != 0:
            branches.append("given")
            if self.number_guidance and structured.opposite(conditioning.structured):
                branches.append("opposite")
        return Way(
            conditioning.steps or self.steps,
            tuple(branches),
            strength,
            bool(conditioning.mask_image),
            bool(conditioning.aims),
        )

    @cached_property
    def steering(self) -> Steering:
        """Gradient guidance by a reader of its own, loaded when first asked for."""
        return Steering(steering_reader(), lambda latents: self._decode(latents, None))

    def _decode(self, latents: Tensor, grain: Tensor | None) -> Tensor:
        return self.autoencoder.decode(latents * self.std + self.mean, grain)

    def _scale(self, conditioning: Conditioning) -> float:
        given = conditioning.guidance_scale
        return self.guidance_scale if given is None else given

    def _branch(self, name: str, batch: list[Conditioning]) -> Context:
        modalities = [c.modality or None for c in batch]
        if name == "without":
            return self._context([c.negative_prompt for c in batch], modalities, [{}] * len(batch))
        # Away from the opposite numbers, all else equal: composed guidance (Liu et al. 2022,
        # arXiv 2206.01714), since one scale for everything drowns a number in the text.
        numbers = [
            structured.opposite(c.structured) if name == "opposite" else c.structured for c in batch
        ]
        return self._context([c.prompt for c in batch], modalities, numbers)

    @torch.inference_mode()
    def _draw(self, batch: list[Conditioning], way: Way) -> np.ndarray:
        contexts: dict[str, Context] = {name: self._branch(name, batch) for name in way.branches}
        context = join_contexts(list(contexts.values()))
        scales = torch.tensor([self._scale(c) for c in batch], dtype=torch.float32)
        scales = scales.view(-1, 1, 1, 1)
        scheduler = self.sampling.scheduler(self.scheduler_config)
        scheduler.set_timesteps(way.steps)
        timesteps = scheduler.timesteps
        side = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, side, side)
        draws = [torch.Generator().manual_seed(c.seed) for c in batch]
        latents = torch.stack([torch.randn(shape, generator=one) for one in draws])
        area = (1, self.size, self.size)
        grain = torch.stack([torch.randn(area, generator=one) for one in draws])
        kept = mask = free = None
        if way.strength is None:
            latents = latents * scheduler.init_noise_sigma
        else:
            kept = self._pixels([str(c.init_image) for c in batch])
            start = (self.autoencoder.encode(kept) - self.mean) / self.std
            first = min(len(timesteps) - 1, round(len(timesteps) * (1.0 - way.strength)))
            timesteps = timesteps[first:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
            latents = scheduler.add_noise(start, latents, timesteps[:1].repeat(len(batch)))
        if way.masked:
            mask = (self._pixels([str(c.mask_image) for c in batch]).mean(1, True) > 0).float()
            free = latent_mask(mask, side)
        for index, timestep in enumerate(timesteps):
            levels = Levels(
                scheduler.alphas_cumprod[int(timestep)], scheduler.config.prediction_type
            )
            if self.sampling.active(float(timestep) / scheduler.config.num_train_timesteps):
                scale = self.sampling.scale(scales, (index + 0.5) / len(timesteps))
                predicted = self._guided(latents, timestep, context, way, scale, levels)
            else:
                alone = "given" if "given" in way.branches else "without"
                (predicted,) = self._predict(latents, timestep, contexts[alone], 1)
            time = float(timestep) / scheduler.config.num_train_timesteps
            if way.steered and time > self.steering.push.last_time:
                clean = levels.clean(predicted, latents)
                clean = self.steering.moved(clean, [c.aims for c in batch], draws)
                predicted = levels.predicted(clean, latents)
            if free is not None:
                clean = levels.clean(predicted, latents)
                predicted = levels.predicted(torch.lerp(start, clean, free), latents)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
        pictures = self._decode(latents, grain)
        if kept is not None and mask is not None:
            pictures = blend(pictures, kept, mask)
        pixels = pictures.add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8)
        array = pixels.permute(0, 2, 3, 1).numpy()
        color = {*self.color, ""}
        return np.stack(
            [_picture(p, c.modality in color) for p, c in zip(array, batch, strict=True)]
        )

    def _guided(
        self,
        latents: Tensor,
        timestep: Tensor,
        context: Context,
        way: Way,
        scales: Tensor,
        levels: Levels,
    ) -> Tensor:
        pieces = self._predict(latents, timestep, context, len(way.branches))
        by = dict(zip(way.branches, pieces, strict=True))
        if "given" not in by:
            return by["without"]
        given = guided = by["given"]
        if "without" in by:
            guided = by["without"] + scales * (given - by["without"])
        if "opposite" in by:
            guided = guided + self.number_guidance * (given - by["opposite"])
        if self.sampling.threshold is None:
            return guided
        clean = bounded(
            levels.clean(guided, latents), levels.clean(given, latents), self.sampling.threshold
        )
        return levels.predicted(clean, latents)

    def _predict(
        self, latents: Tensor, timestep: Tensor, context: Context, branches: int
    ) -> tuple[Tensor, ...]:
        prediction = self.unet(
            torch.cat([latents] * branches),
            timestep,
            encoder_hidden_states=context.states,
            encoder_attention_mask=context.mask,
            class_labels=context.pooled,
        ).sample
        return prediction.chunk(branches)

    def _context(
        self,
        prompts: list[str],
        modalities: list[str | None],
        conditions: Sequence[dict[str, float | str]],
    ) -> Context:
        ids, mask = self.tokenizer(self.conditions.words(prompts, modalities))
        states, pooled = self.text(ids, mask)
        try:
            vector = structured.encode(conditions)
        except ValueError as error:
            raise BadInput(f"{error}: see `medgen generate --help`") from error
        modality = self.conditions.modality_ids(modalities)
        return self.conditions(states, mask, pooled, modality, vector)

    def _pixels(self, paths: list[str]) -> Tensor:
        pixels = np.stack([load_square(path, self.size) for path in paths])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _load(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder, use_safetensors=True).float().eval()


def _load_text(folder: Path) -> tuple[Any, Any]:
    """The tokenizer and text encoder of a generator's folder: the compact one, or another's."""
    part = folder / TEXT_ENCODER
    if "model_type" in json.loads((part / "config.json").read_text(encoding="utf-8")):
        return load_pretrained_text(part, frozen=True)
    encoder = _load(CompactTextEncoder, part)
    tokenizer = TextTokenizer.load(folder / "tokenizer" / "tokenizer.json", encoder.config.length)
    return tokenizer, encoder


def _picture(pixels: np.ndarray, color: bool) -> np.ndarray:
    if color:
        return pixels
    grey = pixels.astype(np.float32).mean(axis=2).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)

"""The compact backend: the bundled latent-diffusion model, sampled on a laptop.

Loads a folder (autoencoder, U-Net, condition and text encoders, tokenizer, scheduler) and draws
with DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) and classifier-free guidance (Ho and Salimans
2022, arXiv 2207.12598). The same seed gives the same bytes on one kind of processor whatever is
drawn beside it: noise is per sample and the batch shape is fixed. Knows no plan, check or user.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from medgen.data.images import load_square
from medgen.errors import BadInput, MedgenError
from medgen.generator import structured
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.conditioning import ConditionEncoder, Context, join_contexts
from medgen.generator.text import CompactTextEncoder, TextTokenizer
from medgen.generator.unet import MedicalUNet
from medgen.records import Conditioning


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

    def __init__(
        self,
        folder: str | Path,
        *,
        steps: int,
        guidance_scale: float,
        micro_batch: int,
        number_guidance: float = 0.0,
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
            self.text = _load(CompactTextEncoder, folder / "text_encoder")
            self.scheduler_config = DPMSolverMultistepScheduler.load_config(folder / "scheduler")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise MedgenError(f"cannot load the generator in {folder}: {reason}") from error
        self.tokenizer = TextTokenizer.load(
            folder / "tokenizer" / "tokenizer.json", self.text.config.length
        )
        self.mean = torch.tensor(settings["latents_mean"]).view(1, -1, 1, 1)
        self.std = torch.tensor(settings["latents_std"]).view(1, -1, 1, 1)
        self.size: int = settings["size"]
        self.color = set(settings["color_modalities"])
        self.modalities: tuple[str, ...] = tuple(self.conditions.config.modalities)
        self.fingerprint = fingerprint_folder(folder)
        self.name = f"compact:{self.fingerprint}"
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.micro_batch = micro_batch
        self.number_guidance = number_guidance

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        """See `Generator.sample`: (n, 256, 256, 3) uint8."""
        for conditioning in conditionings:
            if conditioning.modality not in self.modalities:
                raise BadInput(
                    f"{self.name} cannot draw {conditioning.modality}: it can draw "
                    + ", ".join(self.modalities)
                )
        images = np.zeros((len(conditionings), self.size, self.size, 3), dtype=np.uint8)
        groups: dict[tuple[int, float | None, bool], list[int]] = {}
        for index, conditioning in enumerate(conditionings):
            strength = conditioning.strength if conditioning.init_image else None
            numbers = bool(self.number_guidance and structured.opposite(conditioning.structured))
            key = (conditioning.steps or self.steps, strength, numbers)
            groups.setdefault(key, []).append(index)
        for (steps, strength, numbers), members in groups.items():
            for start in range(0, len(members), self.micro_batch):
                chosen = members[start : start + self.micro_batch]
                padded = chosen + [chosen[0]] * (self.micro_batch - len(chosen))
                batch = [conditionings[index] for index in padded]
                pixels = self._draw(batch, steps, strength, numbers)
                images[chosen] = pixels[: len(chosen)]
        return images

    @torch.inference_mode()
    def _draw(
        self, batch: list[Conditioning], steps: int, strength: float | None, numbers: bool
    ) -> np.ndarray:
        positive = self._context(
            [c.prompt for c in batch],
            [c.modality for c in batch],
            [c.structured for c in batch],
        )
        negative = self._context(
            [c.negative_prompt for c in batch], [c.modality for c in batch], [{}] * len(batch)
        )
        branches = [negative, positive]
        if numbers:
            # Away from the opposite numbers, all else equal: composed guidance (Liu et al. 2022,
            # arXiv 2206.01714), since one scale for everything drowns a number in the text.
            branches.append(
                self._context(
                    [c.prompt for c in batch],
                    [c.modality for c in batch],
                    [structured.opposite(c.structured) for c in batch],
                )
            )
        context = join_contexts(branches)
        scales = torch.tensor(
            [c.guidance_scale or self.guidance_scale for c in batch], dtype=torch.float32
        ).view(-1, 1, 1, 1)
        scheduler = DPMSolverMultistepScheduler.from_config(self.scheduler_config)
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        side = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, side, side)
        latents = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(c.seed)) for c in batch]
        )
        if strength is not None:
            first = min(len(timesteps) - 1, round(len(timesteps) * (1.0 - strength)))
            timesteps = timesteps[first:]
            scheduler.set_begin_index(first)
            start = self._encode([str(c.init_image) for c in batch])
            latents = scheduler.add_noise(start, latents, timesteps[:1].repeat(len(batch)))
        else:
            latents = latents * scheduler.init_noise_sigma
        for timestep in timesteps:
            prediction = self.unet(
                torch.cat([latents] * len(branches)),
                timestep,
                encoder_hidden_states=context.states,
                encoder_attention_mask=context.mask,
                class_labels=context.pooled,
            ).sample
            without, given, *opposed = prediction.chunk(len(branches))
            guided = without + scales * (given - without)
            if opposed:
                guided = guided + self.number_guidance * (given - opposed[0])
            latents = scheduler.step(guided, timestep, latents).prev_sample
        pictures = self.autoencoder.decode(latents * self.std + self.mean)
        pixels = pictures.add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8)
        array = pixels.permute(0, 2, 3, 1).numpy()
        return np.stack(
            [_picture(p, c.modality in self.color) for p, c in zip(array, batch, strict=True)]
        )

    def _context(
        self,
        prompts: list[str],
        modalities: list[str],
        conditions: Sequence[dict[str, float | str]],
    ) -> Context:
        ids, mask = self.tokenizer(self.conditions.words(prompts, modalities))
        states, pooled = self.text(ids, mask)
        try:
            vector = structured.encode(conditions)
        except ValueError as error:
            raise BadInput(f"{error}: see `medgen generate --help`") from error
        modality = self.conditions.modality_ids(list(modalities))
        return self.conditions(states, mask, pooled, modality, vector)

    def _encode(self, paths: list[str]) -> Tensor:
        pixels = np.stack([load_square(path, self.size) for path in paths])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        return (self.autoencoder.encode(images) - self.mean) / self.std


def _load(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder, use_safetensors=True).float().eval()


def _picture(pixels: np.ndarray, color: bool) -> np.ndarray:
    if color:
        return pixels
    grey = pixels.astype(np.float32).mean(axis=2).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)

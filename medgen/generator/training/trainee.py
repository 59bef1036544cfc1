"""What is trained, where it starts from, and the generator's folder it becomes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.checkpoints import read_state, writing_folder
from medgen.generator.conditioning import ConditionEncoder
from medgen.generator.pretrained_text import PretrainedTextEncoder, PretrainedTokenizer
from medgen.generator.text import CompactTextEncoder, TextTokenizer
from medgen.generator.training.config import TrainingConfig
from medgen.generator.unet import build_unet, load_trained

COMPONENTS = ("text_encoder", "conditions", "unet")


class Trainee(nn.Module):
    """All that is trained: text encoder, condition encoder and U-Net."""

    def __init__(
        self,
        config: TrainingConfig,
        modalities: tuple[str, ...],
        text_encoder: CompactTextEncoder | PretrainedTextEncoder,
        side: int,
    ) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        width = text_encoder.width
        self.conditions = ConditionEncoder(
            modalities, text_width=width, **config.conditions.model_dump()
        )
        self.unet = build_unet(
            sample_size=side,
            context_width=width,
            pooled_width=config.conditions.pooled_width,
            **config.unet.model_dump(),
        )

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        ids: Tensor,
        mask: Tensor,
        modality: Tensor,
        vector: Tensor,
    ) -> Tensor:
        """The prediction from noisy latents (batch, 16, h, w) under their conditions."""
        states, pooled = self.text_encoder(ids, mask)
        context = self.conditions(states, mask, pooled, modality, vector)
        return self.unet(
            latents,
            times,
            encoder_hidden_states=context.states,
            encoder_attention_mask=context.mask,
            class_labels=context.pooled,
        ).sample

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint keeps: all but a frozen text encoder, which its source holds."""
        frozen = {name for name, value in self.named_parameters() if not value.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave.

        Raises:
            RuntimeError: A name or a shape does not fit.
        """
        own = self.state_dict()
        kept = {name: own[name] for name in own.keys() - self.weights().keys()}
        self.load_state_dict({**weights, **kept})

    def architecture(self) -> dict[str, Any]:
        """What another run must share to go on from this one's checkpoints, as plain values."""
        kept = {
            name: {
                key: value
                for key, value in getattr(self, name).config.items()
                if not key.startswith("_")
            }
            for name in COMPONENTS
        }
        return json.loads(json.dumps(kept))


class Start(NamedTuple):
    """Weights to start from, with what must be kept with them."""

    source: Path
    weights: dict[str, Tensor]
    tokenizer: Path | None
    modalities: tuple[str, ...]
    description: dict[str, Any]


def read_start(path: Path) -> Start:
    """Read a checkpoint of training (its running average) or a generator's folder.

    Raises:
        BadInput: Neither, or unreadable.
    """
    if path.is_file():
        weights = read_state(path)["average"]
        folder, tokenizer = path.parent / "generator", path.parent / "tokenizer.json"
    else:
        folder, tokenizer = path, path / "tokenizer" / "tokenizer.json"
        if not (folder / "generator.json").is_file():
            raise BadInput(f"init_from: {path} is no generator (generator.json is missing)")
        weights = {}
        try:
            for name in COMPONENTS:
                weights |= _component(folder / name, name)
        except (OSError, SafetensorError) as error:
            raise BadInput(f"init_from: cannot read {folder}: {error}") from error
    modalities: tuple[str, ...] = ()
    description: dict[str, Any] = {}
    if (folder / "generator.json").is_file():
        conditions = json.loads((folder / "conditions" / "config.json").read_text())
        modalities = tuple(conditions["modalities"])
        description = json.loads((folder / "generator.json").read_text())
    return Start(path, weights, tokenizer if tokenizer.is_file() else None, modalities, description)


def _component(folder: Path, name: str) -> dict[str, Tensor]:
    """A component's weights under their names in a `Trainee`."""
    of_transformers = folder / "model.safetensors"
    if of_transformers.is_file():
        part, prefix = load_file(of_transformers), f"{name}.model"
    else:
        part, prefix = load_file(folder / "diffusion_pytorch_model.safetensors"), name
    return {f"{prefix}.{key}": value.float() for key, value in part.items()}


def start_from(model: Trainee, start: Start) -> list[str]:
    """Put a start's weights into a trainee; new parts and modalities keep their own beginning.

    Returns:
        The parts of the U-Net that are new.

    Raises:
        BadInput: The weights belong to another architecture.
    """
    parts: list[str] = []
    for name in COMPONENTS:
        module = getattr(model, name)
        if isinstance(module, PretrainedTextEncoder) and module.frozen:
            continue
        state = {
            key.removeprefix(f"{name}."): value
            for key, value in start.weights.items()
            if key.startswith(f"{name}.")
        }
        table = state.get("modality.weight")
        if name == "conditions" and table is not None:
            own = module.state_dict().get("modality.weight")
            if own is not None and len(own) > len(table) and own.shape[1] == table.shape[1]:
                state["modality.weight"] = torch.cat([table, own[len(table) :]])
        try:
            parts += load_trained(module, state)
        except ValueError as error:
            raise BadInput(
                f"init_from: {start.source} has another architecture than the configuration "
                f"({name}: {error}): change {name} to match"
            ) from error
    return parts


def save_generator(
    folder: Path,
    model: Trainee,
    autoencoder: CompactAutoencoder,
    tokenizer: TextTokenizer | PretrainedTokenizer,
    scheduler: DPMSolverMultistepScheduler,
    description: dict[str, Any],
) -> None:
    """Write the folder that `CompactGenerator` loads, in fp16 safetensors.

    Raises:
        MedgenError: It cannot be written; the folder that was there is kept.
    """
    parts = {name: getattr(model, name) for name in COMPONENTS}
    with writing_folder(folder) as new:
        for name, part in {**parts, "autoencoder": autoencoder}.items():
            # A copy: halving in place would round the running average at each save.
            copy.deepcopy(part).half().save_pretrained(new / name)
        tokenizer.save(new)
        scheduler.save_pretrained(new / "scheduler")
        write_atomic(new / "generator.json", json.dumps(description, indent=1))

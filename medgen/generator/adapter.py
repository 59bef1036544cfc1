"""Adapters of the compact generator: small weights beside its own, with where they come from.

LoRA (Hu et al. 2021, arXiv 2106.09685) in peft's layout (adapter_model.safetensors,
adapter_config.json), and `adapter.json` with the lineage. An adapter is merged into the U-Net when
it is loaded, which needs no peft; the base's files are never written. Knows no training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.generator.checkpoints import writing_folder
from medgen.records import Record

WEIGHTS, CONFIG, LINEAGE = "adapter_model.safetensors", "adapter_config.json", "adapter.json"
BASE_PARTS = ("unet", "conditions", "text_encoder")
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
ID_DIGITS = 12


class AdapterLineage(Record):
    """What an adapter's folder says of itself (`adapter.json`).

    `id` is a hash of its weights; `base` one of the weights it sits on, `log` one of the snapshot
    of the feedback log it learned from (hex). `config` is the whole configuration of its training,
    `metrics` what was measured on held-out prompts and images. `labels` counts the labels by
    source, so that simulated ones are never taken for people's.
    """

    id: str = ""
    base: str
    log: str
    method: str
    step: int = Field(ge=0)
    stopped: str = ""
    labels: dict[str, int] = Field(default_factory=dict)
    config: dict[str, object] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    medgen: str = ""


def base_hash(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 over the weights that an adapter sits on.

    U-Net and encoders; not the autoencoder, whose decoder may change without changing latents.

    Args:
        folder: Of a compact generator.
    """
    digest = hashlib.sha256()
    for part in BASE_PARTS:
        for path in sorted((folder / part).glob("*.safetensors")):
            digest.update(f"{part}/{path.name}".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_adapter(
    folder: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], lineage: AdapterLineage
) -> AdapterLineage:
    """Write an adapter's folder, whole or not at all.

    Args:
        folder: Where to.
        weights: By peft's names in the U-Net.
        config: peft's own, with `r` and `lora_alpha`.
        lineage: Where it comes from; its `id` is set here, from the weights.

    Raises:
        MedgenError: It cannot be written.
    """
    tensors = {
        f"{PREFIX}{name}": value.detach().cpu().float().contiguous()
        for name, value in weights.items()
    }
    content = save(tensors)
    named = lineage.model_copy(update={"id": hashlib.sha256(content).hexdigest()[:ID_DIGITS]})
    with writing_folder(folder) as new:
        write_atomic(new / WEIGHTS, content)
        write_atomic(new / CONFIG, json.dumps(dict(config), indent=1, default=str) + "\n")
        write_atomic(new / LINEAGE, named.model_dump_json(indent=1) + "\n")
    return named


def read_lineage(folder: Path) -> AdapterLineage:
    """What an adapter's folder says of itself.

    Raises:
        BadInput: It is no adapter of medgen, or its weights are not those that it names.
    """
    try:
        lineage = AdapterLineage.model_validate_json((folder / LINEAGE).read_bytes())
        content = (folder / WEIGHTS).read_bytes()
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"no adapter in {folder} ({reason}): give a folder that medgen rlhf wrote"
        ) from error
    if hashlib.sha256(content).hexdigest()[:ID_DIGITS] != lineage.id:
        raise BadInput(f"the adapter in {folder} is damaged: its weights are not {lineage.id}")
    return lineage


@torch.no_grad()
def merge_adapter(unet: nn.Module, folder: Path, base: str) -> AdapterLineage:
    """Add an adapter's weights to a U-Net in memory.

    Args:
        unet: The base's, in float32.
        folder: The adapter's.
        base: The base's `base_hash`.

    Raises:
        BadInput: No adapter, or one of another base.
    """
    lineage = read_lineage(folder)
    if lineage.base != base:
        raise BadInput(
            f"adapter {lineage.id} was trained on the weights {lineage.base}, not on {base}: set "
            "MEDGEN_WEIGHTS to those, or MEDGEN_ADAPTER=none"
        )
    try:
        tensors = load((folder / WEIGHTS).read_bytes())
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        scale = float(config["lora_alpha"]) / float(config["r"])
        modules = dict(unet.named_modules())
        for key, down in tensors.items():
            if not key.endswith(DOWN):
                continue
            name = key.removesuffix(DOWN)
            weight: Any = modules[name.removeprefix(PREFIX)].weight
            change = tensors[f"{name}{UP}"].flatten(1) @ down.flatten(1)
            weight += (scale * change).view(weight.shape)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"the adapter in {folder} does not fit the generator ({reason})") from error
    return lineage

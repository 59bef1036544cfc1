"""A training run's configuration: YAML in, a checked record out, errors in one line.

`extends: other.yaml` (relative to the file) takes another configuration and changes what is given.
Paths are relative to the working directory. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from medgen.errors import BadInput

Share = Field(ge=0, le=1)
Checked = TypeVar("Checked", bound=BaseModel)


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectiveConfig(Section):
    """What the U-Net predicts, on which schedule, and how steps are weighted.

    weighting: "none"; "min_snr" (Hang et al. 2023, arXiv 2303.09556); "capped", min-SNR's cap on
    SNR + 1, which leaves the noisiest steps their weight.
    """

    prediction: Literal["epsilon", "sample", "v_prediction"] = "v_prediction"
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    weighting: Literal["none", "min_snr", "capped"] = "capped"
    snr_limit: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _bounded(self) -> ObjectiveConfig:
        if self.weighting == "capped" and self.prediction == "epsilon":
            raise ValueError("capped weighting is unbounded for epsilon: use min_snr or none")
        return self


class DropoutConfig(Section):
    """Shares of training rows that lose a condition, for guidance without it."""

    all: float = Share
    text: float = Share
    modality: float = Share
    structured: float = Share
    structured_each: float = Share


class TextEncoderConfig(Section):
    """Arguments of `CompactTextEncoder`; the vocabulary is at most this large.

    With `pretrained`, a folder or hub id of a transformers encoder, that one is used with its own
    tokenizer; `frozen` then leaves its weights alone, and of the rest only `length` counts.
    """

    pretrained: str | None = None
    frozen: bool = True
    vocabulary_size: PositiveInt = 2048
    length: PositiveInt = 48
    width: PositiveInt = 192
    layers: PositiveInt = 3
    heads: PositiveInt = 4
    dropout: float = Field(default=0.1, ge=0, lt=1)


class ConditionsConfig(Section):
    """Arguments of `ConditionEncoder`."""

    fusion: Literal["hadamard", "concatenation"] = "hadamard"
    structured_tokens: int = Field(default=2, ge=0)
    pooled_width: int = Field(default=256, ge=0)


class PyramidConfig(Section):
    """Arguments of `PyramidAttention`."""

    width: PositiveInt = 128
    heads: PositiveInt = 4
    layers: PositiveInt = 1
    largest_side: PositiveInt = 16


class UNetConfig(Section):
    """Arguments of `build_unet`."""

    channels: list[PositiveInt] = Field(default=[80, 144, 224], min_length=1)
    attention: list[Literal["none", "cross", "full"]] = ["none", "full", "full"]
    heads: PositiveInt = 4
    groups: PositiveInt = 16
    layers: PositiveInt = 1
    gated_skips: bool = False
    pyramid_attention: PyramidConfig | None = None
    feature_pyramid: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> UNetConfig:
        if len(self.channels) != len(self.attention):
            raise ValueError("channels and attention must name the same number of levels")
        if self.attention[-1] != "full":
            raise ValueError("the coarsest level needs full attention")
        for width in self.channels:
            if width % self.groups or width % self.heads:
                raise ValueError(
                    f"{width} channels must be a multiple of groups ({self.groups}) and of "
                    f"heads ({self.heads})"
                )
        if self.pyramid_attention is not None:
            if len(self.channels) < 3:
                raise ValueError("pyramid attention needs at least three levels")
            if self.pyramid_attention.width % (4 * self.pyramid_attention.heads):
                raise ValueError("pyramid_attention.width must be a multiple of 4 x heads")
        return self


class SamplePrompt(Section):
    """One picture of the sample grid."""

    prompt: str
    modality: str
    structured: dict[str, float | str] = {}


class SamplesConfig(Section):
    """The sample grid: drawn every so many steps, always with the same seeds."""

    every: PositiveInt
    prompts: list[SamplePrompt] = Field(min_length=1)
    seed: int = 0
    steps: PositiveInt = 20
    guidance: float = 1.6


class LoopConfig(Section):
    """What every training loop has.

    Args:
        out: Folder of checkpoints, log, samples and the result.
        cache: Folder of cached latents and indices, shared by runs on the same data; `out` when
            null.
        batch: Pictures a step, over all processes and accumulations.
        lr: Learning rate after `warmup` steps; falls linearly to zero from `decay_from` (a share).
        ema: Limit of the running average's decay.
        clip: Largest norm of the gradient.
        keep_last: Checkpoints to keep beside the best.
    """

    out: Path
    cache: Path | None = None
    seed: int = 0
    steps: PositiveInt
    batch: PositiveInt
    accumulate: PositiveInt = 1
    precision: Literal["no", "fp16", "bf16"] = "no"
    lr: float = Field(gt=0)
    warmup: PositiveInt = 200
    decay_from: float = Share
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    save_every: PositiveInt = 250
    keep_last: PositiveInt = 2
    log_every: PositiveInt = 50
    tracker: Literal["none", "tensorboard", "wandb"] = "none"
    samples: SamplesConfig | None = None

    @field_validator("precision", mode="before")
    @classmethod
    def _written_in_yaml(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads a bare `no` as false

    def needed_files(self) -> dict[str, Path]:
        """Inputs that must be there, by key."""
        return {}

    def check_files(self) -> None:
        """Refuse a run whose inputs are missing.

        Raises:
            BadInput: The first file or folder that is not there, by its key.
        """
        for key, path in self.needed_files().items():
            if not path.exists():
                raise BadInput(f"{key}: {path} does not exist (paths are relative to {Path.cwd()})")


class RunConfig(LoopConfig):
    """A run on a table of images.

    Args:
        table: Image-text table; rows of `split=train` are used.
        joined: Tables joined to it by `path`.
    """

    table: Path
    joined: list[Path] = []

    def needed_files(self) -> dict[str, Path]:
        """Inputs that must be there, by key."""
        joined = {f"joined[{index}]": path for index, path in enumerate(self.joined)}
        return {"table": self.table, **joined}


class TrainingConfig(RunConfig):
    """One training run of the compact generator.

    Args:
        images: (n, H, H, 3) uint8 array (.npy) in the order of the table; when null, the files
            that the table names are read (PNG, JPEG, DICOM), by so many `workers`, and padded or
            cropped (`fit`) to squares of `size` pixels.
        latents: "kept" encodes each picture once, into `cache`; "fresh" each time it is drawn.
        autoencoder: Folder of a `CompactAutoencoder`.
        tokenizer: tokenizer.json to use, trained there when missing; one in `out` when null.
        init_from: A checkpoint or a generator's folder whose weights the run starts from.
        latent_noise: Deviation of the noise on latents that the decoder was trained to bear.
        augmented_copies: Shifted and zoomed copies of each picture in the cache.
        flips: Mirror half of the augmented pictures whose modality card and text have no side.
    """

    kind: Literal["compact"] = "compact"
    images: Path | None = None
    size: PositiveInt = Field(default=256, multiple_of=16)
    fit: Literal["pad", "crop"] = "pad"
    workers: PositiveInt = 2
    latents: Literal["kept", "fresh"] = "kept"
    autoencoder: Path
    tokenizer: Path | None = None
    init_from: Path | None = None
    latent_noise: float = Field(default=0.05, ge=0)
    augmented_copies: int = Field(default=1, ge=0)
    flips: bool = False
    objective: ObjectiveConfig = ObjectiveConfig()
    dropout: DropoutConfig
    text_encoder: TextEncoderConfig = TextEncoderConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    unet: UNetConfig = UNetConfig()

    def needed_files(self) -> dict[str, Path]:
        """Inputs that must be there, by key."""
        needed = {"images": self.images, "autoencoder": self.autoencoder}
        needed["init_from"] = self.init_from
        given = {key: path for key, path in needed.items() if path is not None}
        return {**super().needed_files(), **given}


class FinetuningConfig(RunConfig):
    """Fine-tuning of a Stable-Diffusion-family model's U-Net (`kind: diffusers`).

    Args:
        base: Folder in diffusers' layout or hub id: SD 1.x, 2.x or SDXL.
        method: "full" trains the whole U-Net with a running average; "lora" an adapter; "qlora" an
            adapter over 4-bit (nf4) linear layers.
        size: Side of the training pictures in pixels; the base's own when null.
        fit: How pictures that are not square become so.
        rank: Rank of the adapter; its effect is scaled by alpha / rank.
        targets: Ends of the names of the layers that get an adapter, or regular expressions.
        caption_dropout: Share of captions left out, for guidance without them.
        weighting: "min_snr" (Hang et al. 2023, arXiv 2303.09556) or "none"; prediction and
            schedule are the base's own.
        gradient_checkpointing: Less memory for about a third more time.
        held_out: Pictures of the validation fold that are measured.
    """

    kind: Literal["diffusers"]
    base: str
    method: Literal["full", "lora", "qlora"] = "lora"
    size: PositiveInt | None = None
    fit: Literal["pad", "crop"] = "pad"
    workers: PositiveInt = 2
    rank: PositiveInt = 16
    alpha: PositiveInt = 16
    targets: list[str] = [
        r"attn2\.(to_q|to_k|to_v|to_out\.0)",
        r"mid_block\..*attn1\.(to_q|to_k|to_v|to_out\.0)",
        "proj_out",
        "conv_out",
    ]
    caption_dropout: float = Field(default=0.1, ge=0, le=1)
    weighting: Literal["none", "min_snr"] = "min_snr"
    snr_limit: float = Field(default=5.0, gt=0)
    gradient_checkpointing: bool = False
    held_out: int = Field(default=64, ge=0)


def load_config(
    path: str | Path, changes: Mapping[str, Any] | None = None
) -> TrainingConfig | FinetuningConfig:
    """Read and check a configuration; `kind: diffusers` makes it one of fine-tuning.

    Args:
        path: The YAML file.
        changes: Entries that win over the file's, nested as in it.

    Raises:
        BadInput: No such file, no YAML, an unknown key, a wrong value; with the key's name.
    """
    content = read_config(path, changes)
    if content.get("kind") == "diffusers":
        return checked(FinetuningConfig, content, path)
    return checked(TrainingConfig, content, path)


def read_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The entries of a configuration file, with what it extends and the changes, unchecked.

    Raises:
        BadInput: No such file, no YAML, or a file that extends itself.
    """
    return _merged(_read(Path(path), ()), changes or {})


def checked(kind: type[Checked], content: Mapping[str, Any], path: str | Path) -> Checked:
    """A configuration record of entries.

    Args:
        kind: The record.
        content: From `read_config`.
        path: The file, for the message.

    Raises:
        BadInput: An unknown key or a wrong value; with the key's name.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "configuration"
        reason = {
            "extra_forbidden": "unknown key",
            "missing": "this key is needed",
        }.get(first["type"], f"{first['msg'].removeprefix('Value error, ')}")
        given = first["input"]
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
        more = error.error_count() - 1
        rest = f"; {more} more like it" if more else ""
        raise BadInput(f"{path}: {key}: {reason}{shown}{rest}") from error


def parse_changes(entries: Sequence[str]) -> dict[str, Any]:
    """Changes for `load_config` from `key=value` texts; dots go down, values are YAML.

    Raises:
        BadInput: An entry without a key or without "=".
    """
    changes: dict[str, Any] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not (key.strip() and equals):
            raise BadInput(f"--set {entry!r} is not KEY=VALUE, such as steps=4000")
        nested: Any = yaml.safe_load(value)
        for name in reversed(key.strip().split(".")):
            nested = {name: nested}
        changes = _merged(changes, nested)
    return changes


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise BadInput(f"{path} extends itself: remove one `extends`")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path} is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} must be a mapping of keys to values")
    base = content.pop("extends", None)
    if base is None:
        return content
    return _merged(_read(path.parent / str(base), (*seen, path.resolve())), content)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(dict(before or {}), value) if both else value
    return result

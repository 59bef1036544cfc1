"""Every setting in one place: `MEDGEN_*` environment variables or a `medgen.toml` in the folder."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from medgen.errors import BadInput

Share = Annotated[float, Field(ge=0, le=1)]
ThresholdSet = Literal["strict", "balanced", "lenient"]

RUN_SETTINGS = (
    "backend",
    "weights",
    "adapter",
    "tuned",
    "threads",
    "micro_batch",
    "steps",
    "guidance_scale",
    "number_guidance",
    "sampler",
    "guidance_schedule",
    "guidance_interval",
    "dynamic_threshold",
    "retrieval",
    "thresholds",
    "vision_llm",
    "torchxrayvision",
    "alignment",
    "selector",
    "prompt_policy",
    "llm",
    "llm_method",
    "llm_tokens",
    "llm_answer_tokens",
)
"""What a run's images depend on beside its request; each run records them. No secret is one."""


class Settings(BaseSettings):
    """Settings with their defaults; environment variables win over `medgen.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="MEDGEN_", toml_file="medgen.toml", extra="forbid", frozen=True
    )

    runs: Path = Field(Path("runs"), description="Folder that receives one folder a run.")
    backend: str = Field(
        "compact", description="Generator backend: 'compact' or 'diffusers:FOLDER_OR_HUB_ID'."
    )
    weights: Path | None = Field(
        None, description="Folder of the compact generator; the bundled one when not set."
    )
    adapter: Path | Literal["none"] | None = Field(
        None,
        description="Folder of an adapter over the compact generator (what `medgen rlhf` writes), "
        "or 'none'; the promoted one when not set.",
    )
    adapters: Path | None = Field(
        None, description="Folder of promoted adapters; in the user data folder when not set."
    )
    tuned: Path | None = Field(
        None,
        description="Folder of a fine-tuned unet/ (MINIM's layout) or of a LoRA adapter, over the "
        "diffusers backend's base; what `medgen train` writes names its base itself.",
    )
    modality_cards: Path | None = Field(
        None, description="Folder with more modality cards (YAML) than the bundled ones."
    )
    knowledge: Path | None = Field(
        None, description="Folder of the knowledge store; the user cache folder when not set."
    )
    retrieval: Literal["all", "facts", "off"] = Field(
        "all",
        description="What a plan retrieves: facts and cases, facts alone, or nothing (ablation).",
    )
    threads: int = Field(
        0, ge=0, description="Processor threads for torch; 0 means every core available."
    )
    micro_batch: int = Field(
        2,
        ge=1,
        le=64,
        description="Images a sampling batch; fixed, so that bytes repeat (datasets: 4 if unset).",
    )
    steps: int = Field(20, ge=2, le=1000, description="Sampling steps.")
    guidance_scale: float = Field(1.6, ge=1, le=30, description="Classifier-free guidance scale.")
    number_guidance: float = Field(
        1.5,
        ge=0,
        le=10,
        description="Guidance away from the opposite of the structured numbers; 0 saves a third "
        "of the time where numbers are given.",
    )
    sampler: Literal["dpmsolver++", "ddim", "unipc"] = Field(
        "dpmsolver++", description="Sampler of the compact generator."
    )
    guidance_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Guidance over the steps: constant, or growing with the same mean."
    )
    guidance_interval: tuple[Share, Share] = Field(
        (0.0, 1.0),
        description="Guidance acts between these times, 0 clean and 1 noise, such as '[0.1, 0.8]'; "
        "steps outside cost half.",
    )
    dynamic_threshold: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Percentile of the predicted latents that guidance may not raise; off when "
        "not set.",
    )
    thresholds: ThresholdSet = Field(
        "balanced",
        description="How sure the verifier must be: sets calibrated to a share of false accepts.",
    )
    rounds: int = Field(3, ge=1, le=20, description="Rounds an agent run may take.")
    candidates: int = Field(2, ge=1, le=64, description="Candidates a round.")
    seconds: float | None = Field(
        None, gt=0, description="No new round of an agent run starts after so many seconds."
    )
    templates: Path | None = Field(
        None, description="Folder with report templates (YAML) over the bundled ones."
    )
    llm: str | None = Field(
        None,
        description="Language model that reasons beside the rules, as PROVIDER:MODEL of LangChain "
        "('openai:NAME' with OPENAI_BASE_URL for a local server); rules alone when not set.",
    )
    vision_llm: str | None = Field(
        None,
        description="Language model that sees pictures, as PROVIDER:MODEL: a member of the "
        "verifier's panel that never decides alone; none when not set.",
    )
    torchxrayvision: Path | None = Field(
        None,
        description="Folder of TorchXRayVision weights (python -m medgen.measure.torchxrayvision), "
        "a member of the panel for chest X-rays.",
    )
    alignment: str | None = Field(
        None,
        description="An open_clip model's folder or hub id, BiomedCLIP for one, that measures the "
        "image-text margin; the bundled CLIP when not set.",
    )
    llm_method: Literal["json_schema", "function_calling", "json_mode"] = Field(
        "json_schema", description="How the model is held to a schema; what its server can do."
    )
    llm_timeout: float = Field(
        20, gt=0, le=3600, description="Seconds that one answer of the language model may take."
    )
    llm_tokens: int = Field(
        20_000, ge=0, description="Tokens, prompts and answers, that one run may use."
    )
    llm_answer_tokens: int = Field(
        1200, ge=16, description="Tokens that one answer of the language model may have."
    )
    llm_cost: float | None = Field(
        None, gt=0, description="US dollars that one run may cost; needs both prices."
    )
    llm_prompt_price: float | None = Field(
        None, ge=0, description="US dollars for a million prompt tokens, as the provider says."
    )
    llm_answer_price: float | None = Field(
        None, ge=0, description="US dollars for a million answer tokens, as the provider says."
    )
    llm_cache: Path | Literal["off"] | None = Field(
        None, description="Folder of earlier answers, or 'off'; the user cache folder if not set."
    )

    feedback: str = Field(
        "feedback.sqlite",
        min_length=1,
        description="The feedback log: a file (SQLite), a postgresql:// URL (the 'postgres' "
        "extra), or 'off'. Runs are added to it as they end.",
    )

    selector: Path | None = Field(
        None,
        description="Folder of a learned selector (what `medgen rlhf selector` writes); candidates "
        "are ranked by the verifier's score when not set.",
    )
    prompt_policy: Path | None = Field(
        None,
        description="File of a prompt policy (what `medgen rlhf prompt-policy` writes), or "
        "'explore' to try the refiner's recipes evenly; its rules when not set.",
    )

    checkpoints: str | None = Field(
        None,
        pattern=r"^postgres(ql)?://",
        description="Where agent runs keep their checkpoints: a postgresql:// URL (the 'postgres' "
        "extra), so that a run begun on one machine goes on on another; a file in each run's own "
        "folder when not set.",
    )

    utility_steps: int | None = Field(
        None,
        ge=1,
        description="Optimiser steps of the classifiers that `medgen evaluate` trains for utility; "
        "those of evaluation/utility.yaml when not set.",
    )

    tracing: Literal["otlp", "mlflow", "langsmith"] | None = Field(
        None, description="Service that agent runs are traced to while they run; docs/traces.md."
    )

    @field_validator("llm", "vision_llm")
    @classmethod
    def _named_model(cls, name: str | None) -> str | None:
        provider, colon, model = (name or "").partition(":")
        if name is not None and not (provider and colon and model.strip() == model != ""):
            raise ValueError("give PROVIDER:MODEL, such as openai:my-model")
        return name

    @field_validator("adapter", mode="before")
    @classmethod
    def _none_or_a_folder(cls, value: object) -> object:
        # A Path would take the word "none" for a folder's name.
        return "none" if str(value).lower() == "none" and value is not None else value

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("the lower end comes first")
        return interval

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of the sources: arguments, environment, `medgen.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@lru_cache
def settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        BadInput: A variable or a line of `medgen.toml` that is unknown or out of its range.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise BadInput(
            f"setting {name} ({first['msg']}): correct MEDGEN_{name.upper()} or medgen.toml"
        ) from error
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise BadInput(f"medgen.toml cannot be read ({error}): correct or remove it") from error

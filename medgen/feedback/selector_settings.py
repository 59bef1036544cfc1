"""The selector's training as a record: `selector.yaml` read, changed by a user's own, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from medgen.errors import BadInput
from medgen.feedback.records import Label, Source
from medgen.feedback.selector_asked import PARTS
from medgen.records import Record

DEFAULTS = Path(__file__).with_name("selector.yaml")


class SelectorSettings(Record):
    """`selector.yaml`, and whose labels train and whose labels judge.

    `train_raters` and `judge_raters` name raters; null means all, of any source for training and
    of people and simulations (never the verifier) for judging.
    """

    parts: dict[str, bool]
    split_by: Literal["prompt", "request"]
    sources: dict[Source, float]
    expert_levels: dict[int, float]
    unknown_level: float = Field(ge=0)
    width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    members: int = Field(ge=1)
    steps: int = Field(ge=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    regression: float = Field(ge=0)
    batch: int = Field(ge=1)
    patience: int = Field(ge=1)
    seed: int
    folds: int = Field(ge=3)
    resamples: int = Field(ge=100)
    least_prompts: int = Field(ge=1)
    least_pairs: int = Field(ge=1)
    least_agreement: float = Field(ge=0, le=1)
    least_votes: int = Field(ge=1)
    train_raters: list[str] | None = None
    judge_raters: list[str] | None = None

    @model_validator(mode="after")
    def _some_part(self) -> SelectorSettings:
        unknown = self.parts.keys() - set(PARTS)
        if unknown or not self.active:
            raise ValueError(f"parts need at least one of {', '.join(PARTS)}, and no other")
        return self

    @property
    def active(self) -> tuple[str, ...]:
        """The parts that are on, in fixed order."""
        return tuple(part for part in PARTS if self.parts.get(part, False))

    def weight(self, label: Label) -> float:
        """How much a label counts: its source times its rater's expert level."""
        level = self.unknown_level
        if label.expert_level is not None:
            level = self.expert_levels.get(label.expert_level, level)
        return self.sources.get(label.source, 0.0) * level


def selector_settings(
    config: Path | None = None, changes: Mapping[str, Any] | None = None
) -> SelectorSettings:
    """The bundled settings with those of a file and then `changes` over them.

    Raises:
        BadInput: A file that cannot be read, an unknown name or a value out of its range.
    """
    values = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    where = "selector settings"
    try:
        if config is not None:
            where = str(config)
            own = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
            for name, value in own.items():
                merged = isinstance(value, dict) and isinstance(values.get(name), dict)
                values[name] = {**values[name], **value} if merged else value
        return SelectorSettings.model_validate({**values, **(changes or {})})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "parts"
        raise BadInput(f"{where}: {name}: {first['msg'].lower()}; see selector.yaml") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"cannot read {where} ({reason}): give a YAML file of settings") from error

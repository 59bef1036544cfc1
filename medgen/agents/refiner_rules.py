"""The refiner's rules as records: `rules/refiner.yaml` read, checked and kept.

Knows which numbers there are and what they mean; what is done with them is in
`medgen.agents.refiner`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import Field

from medgen.records import Record

ActionName = Literal["structured", "emphasis", "negative", "guidance", "img2img", "region", "steer"]


class Span(Record):
    """Bounds of a structured value, and the largest change at once.

    `of_noise` says that its error belongs to the noise: fresh noise is asked for what was asked
    first. Otherwise the error is the generator's, and the change goes along.
    """

    low: float
    high: float
    largest_step: float = Field(gt=0)
    of_noise: bool = False


class Gain(Record):
    """How strongly a structured value follows its error, before and after it was measured."""

    start: float
    low: float
    high: float
    least_change: float = Field(gt=0)


class Guidance(Record):
    """Factors and bounds of the guidance scale."""

    up: float = Field(gt=1)
    down: float = Field(gt=0, lt=1)
    low: float
    high: float


class Renoising(Record):
    """When img2img is tried, and how much of the noise it puts back."""

    strength: float = Field(gt=0, le=1)
    least_score: float


class Region(Record):
    """How much noise a region drawn anew is given."""

    strength: float = Field(gt=0, le=1)


class Memory(Record):
    """How many trials without improvement drop an action."""

    trials: int = Field(ge=1)


class Recipe(Record):
    """The actions that one candidate tries, on the parent's noise or on fresh noise."""

    noise: Literal["same", "fresh"]
    actions: list[ActionName]


class RefinerRules(Record):
    """`rules/refiner.yaml`."""

    structured: dict[str, Span]
    gain: Gain
    emphasis: list[str]
    longest_prompt: int
    longest_negative_prompt: int
    guidance: Guidance
    img2img: Renoising
    region: Region
    memory: Memory
    recipes: list[Recipe] = Field(min_length=2)


@lru_cache
def refiner_rules() -> RefinerRules:
    """The bundled rules, read once."""
    source = resources.files("medgen.agents") / "rules" / "refiner.yaml"
    return RefinerRules.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))

"""What is written beside a selector's weights: what it was made of, and how well it did."""

from __future__ import annotations

from pydantic import Field

from medgen.feedback.selector_asked import Vocabulary
from medgen.feedback.selector_settings import SelectorSettings
from medgen.records import Record


class Estimate(Record):
    """A figure with its 95 % interval (percentile bootstrap over prompts)."""

    value: float
    low: float
    high: float


class Contest(Record):
    """The selector beside its baselines on held-out preferences of one scope.

    `judge` is whose labels ("all" of them, or one rater); `scope` "all" or a modality. `accuracy`
    is the share of preferences that a ranking agrees with, ties half, and `difference` the
    selector's minus each baseline's, by prompt. `chosen` is the mean rating (0-1) of the candidate
    that each would choose of a prompt's, beside the best and the mean that there are.
    """

    judge: str
    source: str
    scope: str
    preferences: int
    prompts: int
    accuracy: dict[str, Estimate]
    difference: dict[str, Estimate]
    chosen: dict[str, Estimate] = Field(default_factory=dict)


class Ablation(Record):
    """Held-out pair accuracy with some parts alone."""

    parts: list[str]
    accuracy: Estimate


class SelectorCard(Record):
    """`selector.json`.

    `usable` is true only if the selector beats chance, always-CLIP and verifier-only on held-out
    labels that are not the verifier's, each with an interval above 0; `why` says what decided.
    `trained_on` and `judged_by` count preferences by source and rater. `temperature` divides
    rewards into log-odds of preference; `knots` map them to a mean rating (isotonic; empty where
    ratings were too few). `calibration_error` is of held-out preferences.
    """

    schema_version: int = 1
    log: str
    log_digest: str
    labels: int
    candidates: int
    prompts: int
    trained_on: dict[str, int]
    judged_by: dict[str, int]
    settings: SelectorSettings
    vocabulary: Vocabulary
    widths: dict[str, int]
    encoders: dict[str, str]
    temperature: float = Field(gt=0)
    knots: list[tuple[float, float]] = Field(default_factory=list)
    calibration_error: float | None = None
    usable: bool
    why: str
    contests: list[Contest] = Field(default_factory=list)
    ablations: list[Ablation] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

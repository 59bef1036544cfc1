"""The panel's numbers: rules (`panel.yaml`) and the cards written by the measuring scripts."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import yaml
from pydantic import Field

from medgen.records import Record, Severity


class Grade(Record):
    """The ratio range of a grade of cardiomegaly, and what a correction aims at."""

    low: float
    high: float | None
    target: float


class CardiothoracicRules(Record):
    """Findings by whether they mean an enlarged heart; the ratio's error and targets."""

    enlarged: dict[str, bool]
    error: float = Field(gt=0)
    weight: float
    target_enlarged: float
    target_normal: float
    severity: dict[Severity, Grade]
    accuracy: str


class OpacityRules(Record):
    """Findings by whether they mean a denser lung; how much denser the wrong side may be."""

    opaque: dict[str, bool]
    wrong_side: float


class ModalityRules(Record):
    """Below which probability of the asked modality an image is rejected."""

    reject_below: float


class Weights(Record):
    """Shares of the score; they sum to 1. `rejected` and `contradicted` cap it."""

    findings: float
    modality: float
    quality: float
    alignment: float
    rejected: float
    contradicted: float
    margin_scale: float


class Rules(Record):
    """`panel.yaml`."""

    source: str
    confirm: float = Field(gt=0.5, lt=1)
    contradict: float = Field(gt=0, lt=0.5)
    modality: ModalityRules
    rejecting_problems: list[str]
    cardiothoracic_ratio: CardiothoracicRules
    opacity: OpacityRules
    score: Weights


class PopulationOpacity(Record):
    """How lung opacity tells opaque from clear lungs on films of one population."""

    measurable: bool
    reason: str | None
    intercept: float
    slope: float
    opaque_from: float
    clear_to: float
    opaque_target: float
    clear_target: float
    weight: float
    accuracy: str


class OpacityCard(Record):
    """`medgen/measure/weights/opacity/card.yaml`."""

    source: str
    populations: dict[str, PopulationOpacity]


class ReaderEntry(Record):
    """What a reader head may say of one finding."""

    head: str
    shows: list[str]
    population: str | None
    auc: float
    auc_interval: tuple[float, float]
    positives: int = Field(alias="with")
    negatives: int = Field(alias="without")
    accuracy: str
    verdicts: dict[str, str]
    intercept: float
    slope: float
    measurable: bool
    reason: str | None

    @property
    def weight(self) -> float:
        """How much the head counts: from 0 at an AUC of 0.5 to 1, by the interval's low end."""
        return max(0.0, 2 * self.auc_interval[0] - 1)


class ReaderCard(Record):
    """The parts of `medgen/measure/weights/reader/card.yaml` that the panel needs."""

    modality_accuracy: str
    findings: dict[str, dict[str, list[ReaderEntry]]]


def _document(package: str, path: str) -> dict[str, object]:
    text = resources.files(package).joinpath(path).read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document


@lru_cache
def rules() -> Rules:
    """The panel's rules, read once."""
    return Rules.model_validate(_document("medgen.agents.verifier", "panel.yaml"))


@lru_cache
def reader_card() -> ReaderCard:
    """The bundled reader's card, read once."""
    document = _document("medgen.measure", "weights/reader/card.yaml")
    return ReaderCard.model_validate(
        {key: document[key] for key in ("modality_accuracy", "findings")}
    )


@lru_cache
def opacity_card() -> OpacityCard:
    """The lung opacity's card, read once."""
    return OpacityCard.model_validate(_document("medgen.measure", "weights/opacity/card.yaml"))

"""The panel's numbers: rules (`panel.yaml`) and the cards written by the measuring scripts."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import yaml
from pydantic import ConfigDict, Field, TypeAdapter

from medgen.records import Record, Severity
from medgen.settings import ThresholdSet


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
    """Findings by whether they mean a denser lung; how much denser the wrong side may be.

    `unspecific` are kinds that look alike to this measure.
    """

    opaque: dict[str, bool]
    unspecific: list[str]
    wrong_side: float


class ModalityRules(Record):
    """Below which probability of the asked modality an image is rejected."""

    reject_below: float


class VisionRules(Record):
    """How much a vision language model's word counts, and how sure it is taken to be at most."""

    weight: float = Field(gt=0, le=1)
    most_sure: float = Field(gt=0.5, lt=1)
    accuracy: str


class Weights(Record):
    """Shares of the score; they sum to 1. `rejected` and `contradicted` cap it."""

    findings: float
    modality: float
    quality: float
    alignment: float
    rejected: float
    contradicted: float
    margin_scale: float


class Limits(Record):
    """How sure a verdict must be: a pooled probability that the image is as asked.

    `false_accepts` is the share of wrong requests accepted, of those judged, that the set was
    calibrated to; `calibration` what was measured.
    """

    confirm: float = Field(gt=0.5, lt=1)
    contradict: float = Field(gt=0, lt=0.5)
    false_accepts: float = Field(gt=0, lt=1)
    calibration: str


class Rules(Record):
    """`panel.yaml`."""

    source: str
    thresholds: dict[ThresholdSet, Limits]
    modality: ModalityRules
    rejecting_problems: list[str]
    cardiothoracic_ratio: CardiothoracicRules
    opacity: OpacityRules
    vision: VisionRules
    torchxrayvision: dict[str, str]
    clear_lungs: list[str]
    alignment_contrasts: int = Field(ge=1)
    score: Weights

    @property
    def confirm(self) -> float:
        """From which probability a member takes the image to be as asked (the balanced set)."""
        return self.thresholds["balanced"].confirm


class PopulationOpacity(Record):
    """How lung opacity tells opaque from clear lungs on films of one population.

    `side_accuracy` is the share of films whose outlined lung is the denser one; where presence is
    not measurable that is all that opacity may speak of.
    """

    measurable: bool
    reason: str | None
    intercept: float
    slope: float
    opaque_from: float
    clear_to: float
    opaque_target: float
    clear_target: float
    weight: float
    side_accuracy: float
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


class AnatomyRange(Record):
    """1st to 99th percentile of a value on real training images, and how many had it."""

    range: tuple[float, float]
    images: int
    abstained: int


class AnatomyEntry(Record):
    """How one value of the anatomy tells one finding."""

    model_config = ConfigDict(extra="ignore")

    value: str
    more: bool
    view: str | None = None
    measurable: bool
    reason: str | None = None
    intercept: float | None = None
    slope: float | None = None
    weight: float = 0.0
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    positives: int = Field(alias="with_it")
    negatives: int = Field(alias="without_it")
    accuracy: str | None = None


class SideEntry(Record):
    """How a value tells the side: which sign is right, and the share named rightly."""

    model_config = ConfigDict(extra="ignore")

    value: str
    right: float
    share: float
    interval: tuple[float, float]
    answered: int
    asked: int
    accuracy: str


class RejectionEntry(Record):
    """Which values an image may have, and how many real images have others.

    With `clear_lungs` only where a request leaves the lungs clear.
    """

    model_config = ConfigDict(extra="ignore")

    expected: tuple[float, float]
    rejects: bool
    accuracy: str
    clear_lungs: bool = False


class AnatomyFigures(Record):
    """`medgen/measure/weights/anatomy/figures.yaml`, by modality."""

    source: str
    values: dict[str, dict[str, AnatomyRange]]
    findings: dict[str, dict[str, list[AnatomyEntry]]]
    sides: dict[str, SideEntry]
    rejections: dict[str, dict[str, RejectionEntry]] = Field(default_factory=dict)


class AuditEntry(Record):
    """A finding's shortcut audit: AUC seen whole, and without the lesion; see the audit's card."""

    model_config = ConfigDict(extra="ignore")

    reads_source: bool
    note: str


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


@lru_cache
def anatomy_figures() -> AnatomyFigures:
    """The anatomy checks' figures, read once."""
    return AnatomyFigures.model_validate(
        _document("medgen.measure", "weights/anatomy/figures.yaml")
    )


@lru_cache
def audit() -> dict[str, dict[str, list[AuditEntry]]]:
    """The shortcut audit by modality and finding, entries in the order of the reader's card."""
    document = _document("medgen.measure", "weights/reader/audit.yaml")
    return TypeAdapter(dict[str, dict[str, list[AuditEntry]]]).validate_python(document["findings"])

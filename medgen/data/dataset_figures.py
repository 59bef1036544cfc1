"""What is counted of a dataset, as records; `dataset_stats` counts it."""

from __future__ import annotations

from pydantic import Field

from medgen.records import Record


class Cell(Record):
    """Tasks, drawn candidates and kept images of one modality and label.

    `verified` of the kept were accepted by the verifier; the others are of what it cannot judge.
    """

    modality: str
    label: str
    tasks: int = 0
    candidates: int = 0
    kept: int = 0
    verified: int = 0

    @property
    def share(self) -> float:
        """Tasks that got their image."""
        return self.kept / self.tasks if self.tasks else 0.0


class Balance(Record):
    """How evenly a modality's accepted images are spread over its labels.

    `evenness` is Pielou's: the entropy of the labels over the most that it could be, 1 for equal
    counts, null for one label (Pielou 1966, J. Theor. Biol. 13:131-144).
    """

    labels: int
    smallest: int
    largest: int
    evenness: float | None


class Nearness(Record):
    """Distances of accepted images to the nearest training image, and what was refused for it.

    `closest` to `median` are distances (0 the same, 2 the most); `nearer_than_real` is the share of
    images nearer to a training image than 95 % of real held-out images are; 0.05 were expected of
    real ones.
    """

    images: int
    closest: float
    low: float
    median: float
    nearer_than_real: float | None


class CheckUse(Record):
    """What one check said of one finding, with its figure on real images as its card states it.

    `verdicts` are the panel's on that finding, of which the check is one member.
    """

    modality: str
    finding: str
    check: str
    accuracy: str
    images: int = 0
    verdicts: dict[str, int] = Field(default_factory=dict)


class DatasetStats(Record):
    """What `medgen dataset stats --json` prints.

    `images` are the accepted ones; `unjudged` counts candidates of whose findings nothing could
    be measured. `counts` has for each property how many accepted images have which value;
    `rejections` counts candidates by the kind of reason, one candidate may have several.
    `unchecked` are findings asked for that no check judged, by modality. Mean scores are over
    accepted images and their controls.
    """

    dataset: str
    images: int = 0
    candidates: int = 0
    rejected: int = 0
    unjudged: int = 0
    tasks: int = 0
    groups: int = 0
    cells: list[Cell] = Field(default_factory=list)
    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    balance: dict[str, Balance] = Field(default_factory=dict)
    rejections: dict[str, int] = Field(default_factory=dict)
    nearness: dict[str, Nearness] = Field(default_factory=dict)
    checks: list[CheckUse] = Field(default_factory=list)
    unchecked: dict[str, list[str]] = Field(default_factory=dict)
    score: float | None = None
    control_score: float | None = None
    rounds: float | None = None
    generators: list[str] = Field(default_factory=list)
    verifiers: list[str] = Field(default_factory=list)
    adapters: list[str] = Field(default_factory=list)
    sizes: dict[str, int] = Field(default_factory=dict)

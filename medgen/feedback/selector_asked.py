"""What is known of a candidate beside its picture, in numbers: what was asked, told and measured.

Knows records and names; knows no image, no text encoder and no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from medgen.generator import structured
from medgen.records import Candidate, Plan, Record

PARTS = ("image", "text", "plan", "critique")
SCORE = 1  # column of the critique's features that is the verifier's score
SIDES = (None, "right", "left", "bilateral")


@dataclass(frozen=True)
class Asked:
    """What is known of a candidate beside its picture; what is not known is None.

    `critique` is a dumped `medgen.records.Critique`, `told` the structured values that the
    generator was given, `findings` the dumped findings that were asked for.
    """

    prompt: str
    modality: str
    told: Mapping[str, float | str] = field(default_factory=dict)
    findings: Sequence[Mapping[str, Any]] = ()
    critique: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, candidate: Candidate, prompt: str, plan: Plan) -> Asked:
        """Of a candidate as the agent has it."""
        return cls(
            prompt,
            plan.modality,
            candidate.conditioning.structured,
            [finding.model_dump(mode="json") for finding in plan.findings],
            None if candidate.critique is None else candidate.critique.model_dump(mode="json"),
        )

    @classmethod
    def of_row(cls, logged: Mapping[str, Any]) -> Asked:
        """Of a dumped `LoggedCandidate`; its findings are those of its critique."""
        critique = logged["drawn"]["critique"]
        findings = [] if critique is None else critique["findings"]
        told = logged["drawn"]["conditioning"]["structured"]
        return cls(logged["prompt"], logged["modality"], told, findings, critique)


class Vocabulary(Record):
    """Names that a selector knows, in the order of its features; others are ignored."""

    modalities: list[str] = Field(default_factory=list)
    findings: list[str] = Field(default_factory=list)
    measurements: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, every: Iterable[Asked]) -> Vocabulary:
        """The names that occur in a log."""
        modalities, findings, measurements = set(), set(), set()
        for asked in every:
            modalities.add(asked.modality)
            findings |= {finding["finding"] for finding in asked.findings}
            measurements |= {m["name"] for m in _measurements(asked.critique)}
        return cls(
            modalities=sorted(modalities),
            findings=sorted(findings),
            measurements=sorted(measurements),
        )


def plan_features(asked: Asked, vocabulary: Vocabulary) -> np.ndarray:
    """(P,) float32: told values, modality, and each asked finding with its status and side."""
    told = structured.encode([{k: v for k, v in asked.told.items() if k in _TOLD}])[0].numpy()
    modality = _one_hot(asked.modality, vocabulary.modalities)
    findings = np.zeros((len(vocabulary.findings), 1 + len(SIDES)), dtype=np.float32)
    for finding in asked.findings:
        if finding["finding"] in vocabulary.findings:
            row = vocabulary.findings.index(finding["finding"])
            findings[row, 0] = -1.0 if finding["status"] == "absent" else 1.0
            findings[row, 1 + SIDES.index(finding["side"])] = 1.0
    return np.concatenate([told, modality, findings.ravel()]).astype(np.float32)


def critique_features(asked: Asked, vocabulary: Vocabulary) -> np.ndarray:
    """(C,) float32: verdicts, quality, nearness, alignment, and each measurement's distance."""
    critique = asked.critique
    measured = np.zeros((len(vocabulary.measurements), 3), dtype=np.float32)
    if critique is None:
        return np.concatenate([np.zeros(len(_SUMMARY), dtype=np.float32), measured.ravel()])
    for one in _measurements(critique):
        if one["name"] in vocabulary.measurements:
            row = vocabulary.measurements.index(one["name"])
            measured[row] = 1.0, one["value"], _shortfall(one)
    summary = np.array([read(critique, asked) for read in _SUMMARY], dtype=np.float32)
    return np.concatenate([summary, measured.ravel()])


def _signed(critique: Mapping[str, Any], asked: Asked) -> float:
    """Mean over findings of the confidence, negative where contradicted, 0 where unsure."""
    signs = {"confirmed": 1.0, "contradicted": -1.0}
    values = [
        signs.get(finding["verdict"], 0.0) * (finding["confidence"] or 0.0)
        for finding in critique["findings"]
    ]
    return float(np.mean(values)) if values else 0.0


def _share(verdict: str) -> Any:
    def read(critique: Mapping[str, Any], asked: Asked) -> float:
        return float(np.mean([one["verdict"] == verdict for one in critique["findings"]] or [0]))

    return read


def _margin(critique: Mapping[str, Any], asked: Asked) -> float:
    one = critique["alignment"]
    return 0.0 if one is None else one["value"] - ((one["expected"] or [0])[0] or 0.0)


# A critique in numbers; the first says that there is one.
_SUMMARY = (
    lambda critique, asked: 1.0,
    lambda critique, asked: critique["score"],
    lambda critique, asked: {True: 1.0, False: -1.0, None: 0.0}[critique["accepted"]],
    lambda critique, asked: float(len(critique["rejections"])),
    lambda critique, asked: float(len(critique["corrections"])),
    lambda critique, asked: float(critique["modality"] == asked.modality),
    lambda critique, asked: critique["modality_confidence"] or 0.0,
    lambda critique, asked: (critique["quality"] or {}).get("score", 0.5),
    lambda critique, asked: (critique["nearest_training"] or {}).get("distance", 0.0),
    lambda critique, asked: (critique["nearest_training"] or {}).get("percentile", 50.0) / 100,
    lambda critique, asked: float(critique["alignment"] is not None),
    _margin,
    _signed,
    _share("confirmed"),
    _share("contradicted"),
)
_TOLD = structured.NUMBERS.keys() | structured.CATEGORIES.keys()


def _measurements(critique: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if critique is None:
        return []
    quality = critique["quality"] or {"measurements": []}
    own = [m for finding in critique["findings"] for m in finding["measurements"]]
    return [*own, *quality["measurements"]]


def _shortfall(measurement: Mapping[str, Any]) -> float:
    """How far a value lies outside its expected range, in the value's unit; 0 inside."""
    low, high = measurement["expected"] or (None, None)
    value = measurement["value"]
    if low is not None and value < low:
        return float(value - low)
    return float(value - high) if high is not None and value > high else 0.0


def _one_hot(name: str, names: Sequence[str]) -> np.ndarray:
    return np.array([float(name == one) for one in names], dtype=np.float32)

"""What the selector sees of a candidate: frozen features in four parts, each may be left out.

image: the verifier-side CLIP and reader; text: token states of the bundled medical text encoder;
plan: what the generator was told and what was asked; critique: what the verifier measured. Encoders
are never trained here, and none of evaluation's is among them. Knows no label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from medgen.errors import BadInput
from medgen.generator import structured
from medgen.generator.backends import BUNDLED
from medgen.generator.pretrained_text import TEXT_ENCODER
from medgen.generator.text import CompactTextEncoder, TextTokenizer
from medgen.measure import clip, reader
from medgen.records import Candidate, Plan, Record

PARTS = ("image", "text", "plan", "critique")
SCORE = 1  # column of the critique's features that is the verifier's score
SIDES = (None, "right", "left", "bilateral")
DIGITS = 16


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


@dataclass(frozen=True)
class Features:
    """Features of n candidates and of their t texts.

    `image` (n, I), `plan` (n, P), `critique` (n, C) float32; `tokens` (t, L, T) float32 with `mask`
    (t, L); `text` (n,) int64 says which text is a candidate's.
    """

    image: Tensor
    plan: Tensor
    critique: Tensor
    tokens: Tensor
    mask: Tensor
    text: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def widths(self) -> dict[str, int]:
        """Width of each part."""
        return {
            "image": self.image.shape[1],
            "text": self.tokens.shape[2],
            "plan": self.plan.shape[1],
            "critique": self.critique.shape[1],
        }


def extract(images: np.ndarray, every: Sequence[Asked], vocabulary: Vocabulary) -> Features:
    """Features of candidates.

    Args:
        images: (n, H, H, 3) uint8, square.
        every: What was asked of each.
        vocabulary: Of the selector.

    Raises:
        BadInput: Images of another shape or type.
    """
    return assemble(image_features(images), every, vocabulary)


def assemble(image: Tensor, every: Sequence[Asked], vocabulary: Vocabulary) -> Features:
    """Features, the image's (n, I) computed before."""
    texts = sorted({asked.prompt for asked in every})
    tokens, mask = text_tokens(texts)
    place = {text: index for index, text in enumerate(texts)}
    return Features(
        image,
        torch.from_numpy(np.stack([plan_features(asked, vocabulary) for asked in every])),
        torch.from_numpy(np.stack([critique_features(asked, vocabulary) for asked in every])),
        tokens,
        mask,
        torch.tensor([place[asked.prompt] for asked in every]),
    )


def image_features(images: np.ndarray) -> Tensor:
    """(n, I) float32 of (n, H, H, 3) uint8: CLIP embedding, reader embedding, reader log-odds."""
    embeddings, logits = bundled_reader().forward(images)
    heads = torch.cat([values.log_softmax(1) for values in logits.values()], 1)
    seen = clip.bundled_clip().image_embeddings(images)
    return torch.cat([torch.from_numpy(seen), torch.from_numpy(embeddings), heads], 1).float()


def clip_similarities(images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """(n,) cosines of each image and its text, by the bundled CLIP: the always-CLIP selector."""
    unique = sorted(set(texts))
    by_text = dict(zip(unique, clip.bundled_clip().text_embeddings(unique), strict=True))
    seen = clip.bundled_clip().image_embeddings(images)
    return np.array([one @ by_text[text] for one, text in zip(seen, texts, strict=True)])


@torch.inference_mode()
def text_tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token states (t, L, T) and mask (t, L) of texts, by the generator's text encoder, frozen."""
    tokenizer, encoder = _text_encoder()
    ids, mask = tokenizer(texts)
    states = [encoder(ids[at : at + 64], mask[at : at + 64])[0] for at in range(0, len(ids), 64)]
    return torch.cat(states), mask


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


@lru_cache
def bundled_reader() -> reader.Reader:
    """The verifier's reader, loaded once a process."""
    return reader.Reader.load()


@lru_cache
def _text_encoder() -> tuple[TextTokenizer, CompactTextEncoder]:
    encoder = CompactTextEncoder.from_pretrained(BUNDLED / TEXT_ENCODER, use_safetensors=True)
    encoder = encoder.float().eval().requires_grad_(False)
    length = encoder.config.length
    return TextTokenizer.load(BUNDLED / "tokenizer" / "tokenizer.json", length), encoder


@lru_cache
def encoder_fingerprints() -> dict[str, str]:
    """First 16 hex digits of the SHA-256 of each frozen encoder's weights."""
    files = {
        "clip": clip.WEIGHTS / "clip.safetensors",
        "reader": reader.WEIGHTS / "reader.safetensors",
        "text": next((BUNDLED / TEXT_ENCODER).glob("*.safetensors")),
    }
    return {name: _digest(path) for name, path in files.items()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:DIGITS]


def require_encoders(recorded: Mapping[str, str], where: Path) -> None:
    """Refuse a selector that was trained on other encoders than are installed.

    Raises:
        BadInput: They differ.
    """
    other = [name for name, one in encoder_fingerprints().items() if recorded.get(name) != one]
    if other:
        raise BadInput(
            f"the selector in {where} was trained on another {', '.join(other)} encoder than is "
            "installed: train it again with medgen rlhf selector"
        )

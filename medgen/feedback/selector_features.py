"""What the selector sees of a candidate: frozen features in four parts, each may be left out.

image: the verifier-side CLIP and reader; text: token states of the bundled medical text encoder;
plan: what the generator was told and what was asked; critique: what the verifier measured. Encoders
are never trained here, and none of evaluation's is among them. Knows no label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medgen.errors import BadInput
from medgen.feedback.selector_asked import (
    Asked,
    Vocabulary,
    critique_features,
    plan_features,
)
from medgen.generator.backends import BUNDLED
from medgen.generator.pretrained_text import TEXT_ENCODER
from medgen.generator.text import CompactTextEncoder, TextTokenizer
from medgen.measure import clip, reader

DIGITS = 16


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
    """Token states (t, L, T) and mask (t, L) of texts, by the generator's text encoder, frozen.

    L is the longest text's, not the encoder's: a log has thousands of prompts.
    """
    tokenizer, encoder = _text_encoder()
    ids, mask = tokenizer(texts)
    longest = int(mask.sum(1).max())
    states = [
        encoder(ids[at : at + 64], mask[at : at + 64])[0][:, :longest]
        for at in range(0, len(ids), 64)
    ]
    return torch.cat(states), mask[:, :longest]


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

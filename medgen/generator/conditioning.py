"""What the U-Net hears: text, modality and structured condition, fused, each of them droppable.

Two ways for the modality: an embedding that meets the pooled text in a Hadamard product with a
projection, or, as a baseline, its name before the text. The structured vector adds tokens of its
own. Knows nothing of noise or images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from medgen.generator import structured


class Context(NamedTuple):
    """Conditions in the U-Net's terms.

    `states` (batch, tokens, width) with `mask` (batch, tokens) for cross-attention, `pooled`
    (batch, pooled_width) for the time embedding, null where the encoder has none.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor | None


def join_contexts(contexts: Sequence[Context]) -> Context:
    """Contexts of one encoder as one batch."""
    pooled = [context.pooled for context in contexts if context.pooled is not None]
    return Context(
        torch.cat([context.states for context in contexts]),
        torch.cat([context.mask for context in contexts]),
        torch.cat(pooled) if pooled else None,
    )


class ConditionEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Fuses text states, a modality and a structured vector into a `Context`.

    Args:
        modalities: Names of the modalities; the order is that of their embeddings.
        text_width: Width of the text states.
        structured_width: Entries of the structured vector.
        structured_tokens: Tokens made of the structured vector; 0 switches it off.
        pooled_width: Width of the pooled condition; 0 switches it off.
        fusion: "hadamard" (embedding times pooled text, projected) or "concatenation" (the
            modality's name before the text, no embedding).
    """

    @register_to_config
    def __init__(
        self,
        modalities: tuple[str, ...],
        text_width: int = 192,
        structured_width: int = structured.WIDTH,
        structured_tokens: int = 2,
        pooled_width: int = 256,
        fusion: Literal["hadamard", "concatenation"] = "hadamard",
    ) -> None:
        super().__init__()
        embedded = fusion == "hadamard"
        if embedded:
            self.modality = nn.Embedding(len(modalities) + 1, text_width)
            self.fuse = nn.Linear(text_width, text_width)
        if structured_tokens:
            self.structured = nn.Sequential(
                nn.Linear(structured_width, 256),
                nn.SiLU(),
                nn.Linear(256, structured_tokens * text_width + pooled_width),
            )
        if pooled_width:
            self.pool = nn.Linear((1 + embedded) * text_width, pooled_width)
        self.norm = nn.LayerNorm(text_width)

    def modality_ids(self, names: Sequence[str | None]) -> Tensor:
        """Embedding rows of modality names, (batch,) int64; null is "not given" (row 0)."""
        known = list(self.config.modalities)
        return torch.tensor([0 if name is None else 1 + known.index(name) for name in names])

    def words(self, texts: Sequence[str], modalities: Sequence[str | None]) -> list[str]:
        """The texts to tokenize: with "concatenation", each after its modality's name."""
        if self.config.fusion == "hadamard":
            return list(texts)
        return [
            ", ".join(part for part in (modality, text) if part)
            for text, modality in zip(texts, modalities, strict=True)
        ]

    def forward(
        self, states: Tensor, mask: Tensor, pooled: Tensor, modality: Tensor, vector: Tensor
    ) -> Context:
        """Fuse the conditions of a batch.

        Args:
            states: Token states (batch, length, text_width).
            mask: (batch, length), 1 where there is a token.
            pooled: Pooled text (batch, text_width).
            modality: (batch,) int64 from `modality_ids`.
            vector: (batch, structured_width) from `structured.encode`.
        """
        batch, width = pooled.shape
        tokens, summaries = [states], [pooled]
        if self.config.fusion == "hadamard":
            embedded = self.modality(modality)
            fused = self.fuse(pooled * embedded)
            tokens += [embedded[:, None], fused[:, None]]
            summaries = [fused, embedded]
        extra = None
        if self.config.structured_tokens:
            count = self.config.structured_tokens * width
            given, extra = self.structured(vector).split([count, self.config.pooled_width], dim=1)
            tokens.append(given.view(batch, -1, width))
        joined = torch.cat(tokens, dim=1)
        added = torch.ones(batch, joined.shape[1] - mask.shape[1], dtype=mask.dtype)
        summary = None
        if self.config.pooled_width:
            summary = self.pool(torch.cat(summaries, dim=1))
            summary = summary if extra is None else summary + extra
        return Context(self.norm(joined), torch.cat([mask, added.to(mask.device)], dim=1), summary)

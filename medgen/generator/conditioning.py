"""What the U-Net hears: text, modality and structured condition, fused, each of them droppable.

The modality embedding meets the pooled text in a Hadamard product with a projection; the
structured vector adds tokens of its own. Knows nothing of noise or images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from medgen.generator import structured


class Context(NamedTuple):
    """Conditions in the U-Net's terms.

    `states` (batch, tokens, width) with `mask` (batch, tokens) for cross-attention, `pooled`
    (batch, pooled_width) for the time embedding.
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor


class ConditionEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Fuses text states, a modality and a structured vector into a `Context`."""

    @register_to_config
    def __init__(
        self,
        modalities: tuple[str, ...],
        text_width: int = 192,
        structured_width: int = structured.WIDTH,
        structured_tokens: int = 2,
        pooled_width: int = 256,
    ) -> None:
        super().__init__()
        self.modality = nn.Embedding(len(modalities) + 1, text_width)
        self.fuse = nn.Linear(text_width, text_width)
        self.structured = nn.Sequential(
            nn.Linear(structured_width, 256),
            nn.SiLU(),
            nn.Linear(256, structured_tokens * text_width + pooled_width),
        )
        self.pool = nn.Linear(2 * text_width, pooled_width)
        self.norm = nn.LayerNorm(text_width)

    def modality_ids(self, names: list[str | None]) -> Tensor:
        """Embedding rows of modality names, (batch,) int64; null is "not given" (row 0)."""
        known = list(self.config.modalities)
        return torch.tensor([0 if name is None else 1 + known.index(name) for name in names])

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
        embedded = self.modality(modality)
        fused = self.fuse(pooled * embedded)
        count = self.config.structured_tokens * width
        extra, summary = self.structured(vector).split([count, self.config.pooled_width], dim=1)
        tokens = torch.cat(
            [states, embedded[:, None], fused[:, None], extra.view(batch, -1, width)], dim=1
        )
        added = torch.ones(batch, tokens.shape[1] - mask.shape[1], dtype=mask.dtype)
        return Context(
            self.norm(tokens),
            torch.cat([mask, added.to(mask.device)], dim=1),
            self.pool(torch.cat([fused, embedded], dim=1)) + summary,
        )

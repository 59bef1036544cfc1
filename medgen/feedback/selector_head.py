"""The trained part of the selector: a small ensemble over frozen features, and its two losses.

Bradley-Terry on pairs (Bradley and Terry 1952; Christiano et al. 2017, arXiv 1706.03741) and a
regression of ratings. Knows tensors; knows no log, no image and no prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.feedback.selector_asked import SCORE
from medgen.feedback.selector_features import Features


class Standard(nn.Module):
    """Standardises (n, d) by the mean and deviation of the training rows; flat columns become 0."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, values: Tensor) -> None:
        """Take mean and deviation from (n, d)."""
        deviation = values.std(0, unbiased=False)
        self.mean.copy_(values.mean(0))
        self.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 0.0))

    def forward(self, values: Tensor) -> Tensor:
        """(n, d), most entries within -3 to 3."""
        return ((values - self.mean) * self.scale).clamp(-5, 5)


class Head(nn.Module):
    """One member: parts projected, the image crossed with text and plan, and a perceptron.

    A text is pooled by attention over its tokens, asked by a learned query. With the critique, the
    head begins as the verifier's own score (its column `SCORE`, scaled) and learns what to add:
    a small log then corrects a ranking instead of finding one.
    """

    def __init__(
        self, widths: Mapping[str, int], parts: Sequence[str], width: int, dropout: float
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.project = nn.ModuleDict(
            {part: nn.Linear(widths[part], width, bias=part != "text") for part in self.parts}
        )
        self.query = nn.Linear(widths["text"], 1) if "text" in parts else None
        crossed = [part for part in ("text", "plan") if {part, "image"} <= set(parts)]
        self.crossed = tuple(crossed)
        self.dropout = nn.Dropout(dropout)
        self.mix = nn.Linear(width * (len(parts) + len(crossed)), width)
        self.out = nn.Linear(width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.trust = nn.Parameter(torch.ones(())) if "critique" in parts else None

    def forward(
        self, values: Mapping[str, Tensor], tokens: Tensor, mask: Tensor, text: Tensor
    ) -> Tensor:
        """(n,) rewards of standardised parts (n, ...).

        Args:
            values: The parts but the text.
            tokens: (t, L, T) token states of the texts.
            mask: (t, L), 1 where there is a token.
            text: (n,) int64, each row's text.
        """
        seen = {}
        for part in self.parts:
            value = values.get(part)
            if part == "text":
                assert self.query is not None
                weights = self.query(tokens).squeeze(-1).masked_fill(mask == 0, -1e4).softmax(1)
                value = torch.einsum("tl,tlw->tw", weights, tokens)[text]
            seen[part] = self.project[part](self.dropout(value))
        crossed = [seen["image"] * seen[part] for part in self.crossed]
        joined = torch.cat([*seen.values(), *crossed], 1)
        added = self.out(self.dropout(F.gelu(self.mix(F.gelu(joined))))).squeeze(1)
        return added if self.trust is None else added + self.trust * values["critique"][:, SCORE]


class RewardHead(nn.Module):
    """An ensemble of heads on the same standardised features; its reward is the members' mean."""

    def __init__(
        self,
        widths: Mapping[str, int],
        parts: Sequence[str],
        *,
        width: int,
        dropout: float,
        members: int,
    ) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.standard = nn.ModuleDict(
            {part: Standard(widths[part]) for part in parts if part != "text"}
        )
        self.members = nn.ModuleList(Head(widths, parts, width, dropout) for _ in range(members))

    def fit_standard(self, features: Features, rows: Tensor) -> None:
        """Take means and deviations from the training rows alone."""
        for part, standard in self.standard.items():
            standard.fit(getattr(features, part)[rows])  # type: ignore[operator]

    def trust_scores(self, trust: float) -> None:
        """Begin with a slope of the verifier's score; nothing without the critique."""
        for member in self.members:
            if member.trust is not None:
                nn.init.constant_(member.trust, trust)  # type: ignore[arg-type]

    def forward(self, features: Features, rows: Tensor) -> Tensor:
        """(members, m) rewards of the m chosen rows of the features."""
        values = {
            part: standard(getattr(features, part)[rows])
            for part, standard in self.standard.items()
        }
        texts, text = features.text[rows].unique(return_inverse=True)
        tokens, mask = features.tokens[texts], features.mask[texts]
        return torch.stack([member(values, tokens, mask, text) for member in self.members])


def bradley_terry(better: Tensor, worse: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of -log sigmoid(better - worse).

    Args:
        better: (..., p) rewards of the preferred ones.
        worse: (..., p) rewards of the others.
        weights: (..., p), not negative.
    """
    losses = -F.logsigmoid(better - worse) * weights
    return losses.sum() / weights.sum().clamp_min(1e-9)


def rating_regression(rewards: Tensor, levels: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of sigmoid(reward) with ratings between 0 and 1.

    Its gradient in a reward is sigmoid(reward) - level: the worst rating, level 0, never drives a
    reward up.
    """
    losses = F.binary_cross_entropy_with_logits(rewards, levels, reduction="none") * weights
    return losses.sum() / weights.sum().clamp_min(1e-9)

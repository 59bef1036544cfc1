"""What medgen's U-Net has beyond diffusers' own: each part a module that starts without effect.

Attention gates on the skips (Oktay et al. 2018, arXiv 1804.03999), attention over several
resolutions at once (Pyramid Medical Transformer, arXiv 2104.14702) and a feature pyramid over the
decoder (Lin et al. 2017, arXiv 1612.03144). Output projections start at zero and gates at one, so
that a part added to a trained U-Net changes nothing until it is trained. Knows no block order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F


def _zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class AttentionGate(nn.Module):
    """Lets through of a skip what the decoder asks for: factors in (0, 2), one a place."""

    def __init__(self, skip_channels: int, signal_channels: int, groups: int) -> None:
        super().__init__()
        width = max(1, skip_channels // 2)
        self.skip = nn.Sequential(
            nn.GroupNorm(groups, skip_channels), nn.Conv2d(skip_channels, width, 1)
        )
        self.signal = nn.Sequential(
            nn.GroupNorm(groups, signal_channels), nn.Conv2d(signal_channels, width, 1)
        )
        self.score = _zeroed(nn.Conv2d(width, 1, 1))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """(batch, skip_channels, H, W) and the decoder's (batch, signal_channels, H, W)."""
        score = self.score(F.silu(self.skip(skip) + self.signal(signal)))
        return skip * (2 * torch.sigmoid(score))


class ContextAttention(nn.Module):
    """Cross-attention to the context alone, for levels whose self-attention would cost too much."""

    def __init__(self, channels: int, context_width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.attention = Attention(
            query_dim=channels,
            cross_attention_dim=context_width,
            heads=heads,
            dim_head=channels // heads,
            norm_num_groups=groups,
            residual_connection=True,
        )
        _zeroed(self.attention.to_out[0])

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        """(batch, channels, H, W) -> the same shape; `bias` (batch, 1, tokens) adds to scores."""
        return self.attention(x, encoder_hidden_states=context, attention_mask=bias)


def place_codes(side_y: int, side_x: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids of where a token's centre lies in the picture: (side_y * side_x, width).

    The same place has the same code at every resolution.
    """
    bands = torch.arange(width // 4, device=device)
    frequencies = math.pi * 2 ** (bands * (5 / max(1, width // 4 - 1)))
    axes = []
    for side in (side_y, side_x):
        centres = (torch.arange(side, device=device) + 0.5) / side
        angles = centres[:, None] * frequencies
        axes.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    rows = axes[0][:, None].expand(-1, side_x, -1)
    columns = axes[1][None].expand(side_y, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


class PyramidAttention(nn.Module):
    """Self-attention over the tokens of all resolutions of the encoder together."""

    def __init__(
        self,
        channels: Sequence[int],
        time_width: int,
        groups: int,
        width: int = 128,
        heads: int = 4,
        layers: int = 1,
        largest_side: int = 16,
    ) -> None:
        super().__init__()
        if len(channels) < 3 or width % (4 * heads):
            raise ValueError(
                "pyramid attention needs three resolutions and a width that 4 x heads divides"
            )
        self.largest_side = largest_side
        self.width = width
        self.reads = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(groups, count), nn.Conv2d(count, width, 1))
            for count in channels
        )
        self.levels = nn.Parameter(torch.randn(len(channels), width) * 0.02)
        self.time = nn.Linear(time_width, width)
        self.layers = nn.ModuleList(
            BasicTransformerBlock(width, heads, width // heads) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.writes = nn.ModuleList(_zeroed(nn.Conv2d(width, count, 1)) for count in channels)

    def forward(self, maps: Sequence[Tensor], time: Tensor) -> list[Tensor]:
        """What to add to each map.

        Args:
            maps: (batch, channels[i], H_i, W_i), finest first; sides over `largest_side` are
                pooled for the attention and the answer is interpolated.
            time: The time embedding (batch, time_width).
        """
        tokens, sides = [], []
        for index, (read, x) in enumerate(zip(self.reads, maps, strict=True)):
            y = read(x)
            limit = self.largest_side
            if max(y.shape[2:]) > limit:
                y = F.adaptive_avg_pool2d(y, (min(limit, y.shape[2]), min(limit, y.shape[3])))
            sides.append((y.shape[2], y.shape[3]))
            codes = place_codes(*sides[-1], self.width, y.device) + self.levels[index]
            tokens.append(y.flatten(2).transpose(1, 2) + codes.to(y.dtype))
        x = torch.cat(tokens, dim=1) + self.time(F.silu(time))[:, None]
        for layer in self.layers:
            x = layer(x)
        pieces = self.norm(x).split([height * width for height, width in sides], dim=1)
        additions = []
        for write, piece, side, x in zip(self.writes, pieces, sides, maps, strict=True):
            y = write(piece.transpose(1, 2).unflatten(2, side))
            if y.shape[2:] != x.shape[2:]:
                y = F.interpolate(y, x.shape[2:], mode="bilinear")
            additions.append(y)
        return additions


class FeaturePyramid(nn.Module):
    """Merges the decoder's maps from coarse to fine into one addition to the finest."""

    def __init__(self, channels: Sequence[int], groups: int, width: int = 64) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels[1:])
        self.norm = nn.GroupNorm(math.gcd(groups, width), width)
        self.write = _zeroed(nn.Conv2d(width, channels[-1], 3, padding=1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(batch, channels[i], H_i, W_i), coarsest first -> (batch, channels[-1], H, W)."""
        merged = self.laterals[0](maps[0])
        for lateral, smooth, x in zip(self.laterals[1:], self.smooth, maps[1:], strict=True):
            merged = smooth(lateral(x) + F.interpolate(merged, x.shape[2:], mode="nearest"))
        return self.write(F.silu(self.norm(merged)))

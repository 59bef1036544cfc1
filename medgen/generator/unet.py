"""medgen's U-Net: diffusers' conditional U-Net with parts that can each be switched on.

Conditions arrive as tokens and, pooled, in the time embedding. With every part off it is diffusers'
U-Net, weights and outputs alike; a part that is added to trained weights starts without effect.
Knows nothing of what the conditions mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medgen.generator.unet_parts import (
    AttentionGate,
    ContextAttention,
    FeaturePyramid,
    PyramidAttention,
)

Attention = Literal["none", "cross", "full"]
"""A level's attention: none, to the context alone, or transformer blocks (self and context)."""

PARTS = ("gates", "encoder_pyramid", "decoder_pyramid", "context_attention")
"""Attributes, and so prefixes in a state dict, of the parts beyond diffusers' U-Net."""


class MedicalUNet(UNet2DConditionModel):  # type: ignore[misc]
    """A `UNet2DConditionModel` with optional parts (see `unet_parts`).

    Args:
        gated_skips: Attention gates on the skip connections.
        pyramid_attention: Arguments of `PyramidAttention` (width, heads, layers, largest_side);
            null is off.
        feature_pyramid: Width of the feature pyramid over the decoder; 0 is off.
        context_levels: Levels, finest 0, that get cross-attention alone after each residual block;
            for levels without transformer blocks.
        **plain: Arguments of `UNet2DConditionModel`.
    """

    def __init__(
        self,
        *,
        gated_skips: bool = False,
        pyramid_attention: dict[str, int] | None = None,
        feature_pyramid: int = 0,
        context_levels: Sequence[int] = (),
        **plain: Any,
    ) -> None:
        super().__init__(**plain)
        self.register_to_config(
            gated_skips=gated_skips,
            pyramid_attention=pyramid_attention,
            feature_pyramid=feature_pyramid,
            context_levels=list(context_levels),
        )
        channels = list(self.config.block_out_channels)
        groups = self.config.norm_num_groups
        skips = [channels[0]]
        for block, width in zip(self.down_blocks, channels, strict=True):
            skips += [width] * (len(block.resnets) + (block.downsamplers is not None))
        gates: list[nn.Module] = []
        for block in self.up_blocks:
            for resnet in block.resnets:
                skip = skips.pop()
                gates.append(AttentionGate(skip, resnet.in_channels - skip, groups))
        self.gates = nn.ModuleList(gates) if gated_skips else None
        time_width = self.time_embedding.linear_2.out_features
        self.encoder_pyramid = None
        if pyramid_attention is not None:
            self.encoder_pyramid = PyramidAttention(
                channels, time_width, groups, **pyramid_attention
            )
        self.decoder_pyramid = None
        if feature_pyramid:
            self.decoder_pyramid = FeaturePyramid(channels[::-1], groups, feature_pyramid)
        self.context_attention = None
        if context_levels:
            self.context_attention = nn.ModuleDict(
                {
                    f"{side}{level}": nn.ModuleList(
                        ContextAttention(
                            channels[level],
                            self.config.cross_attention_dim,
                            _heads(self.config, level),
                            groups,
                        )
                        for _ in range(len(blocks[level].resnets))
                    )
                    for side, blocks in (
                        ("down", list(self.down_blocks)),
                        ("up", list(self.up_blocks)[::-1]),
                    )
                    for level in context_levels
                }
            )

    @staticmethod
    def _get_init_keys(input_class: Any) -> set[str]:
        # diffusers reads a config's keys off the signature, which **plain hides.
        plain = set(inspect.signature(UNet2DConditionModel.__init__).parameters)
        own = inspect.signature(MedicalUNet.__init__).parameters
        return plain | {name for name in own if name != "plain"}

    @property
    def plain(self) -> bool:
        """Whether every part is off."""
        return all(getattr(self, part) is None for part in PARTS)

    def forward(  # type: ignore[override]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        class_labels: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> UNet2DConditionOutput | tuple[Tensor, ...]:
        """Predict from noisy latents.

        Args:
            sample: (batch, in_channels, H, W).
            timestep: One for all, or (batch,).
            encoder_hidden_states: Context tokens (batch, tokens, cross_attention_dim).
            class_labels: Pooled condition (batch, projection_class_embeddings_input_dim).
            encoder_attention_mask: (batch, tokens), 1 where a token counts.
            return_dict: As in diffusers.
            **others: Further arguments of diffusers' U-Net, which only the plain one takes.

        Raises:
            ValueError: One of `others` given while a part is on.
        """
        if self.plain:
            return super().forward(
                sample,
                timestep,
                encoder_hidden_states,
                class_labels=class_labels,
                encoder_attention_mask=encoder_attention_mask,
                return_dict=return_dict,
                **others,
            )
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise ValueError(f"a U-Net with parts does not take {', '.join(given)}")
        bias = None
        if encoder_attention_mask is not None:
            bias = ((1 - encoder_attention_mask.to(sample.dtype)) * -10000.0).unsqueeze(1)
        time = self.time_embedding(self.get_time_embed(sample=sample, timestep=timestep))
        pooled = self.get_class_embed(sample=sample, class_labels=class_labels)
        if pooled is not None:
            time = time + pooled
        x, skips = self._encode(self.conv_in(sample), time, encoder_hidden_states, bias)
        x = self.mid_block(
            x, time, encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=bias
        )
        x = self._decode(x, skips, time, encoder_hidden_states, bias)
        x = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return UNet2DConditionOutput(sample=x) if return_dict else (x,)

    def _encode(
        self, x: Tensor, time: Tensor, context: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        skips, ends = [x], []
        for level, block in enumerate(self.down_blocks):
            for index in range(len(block.resnets)):
                x = self._layer(block, "down", level, index, x, time, context, bias)
                skips.append(x)
            ends.append(len(skips) - 1)
            for downsampler in block.downsamplers or ():
                x = downsampler(x)
                skips.append(x)
        if self.encoder_pyramid is not None:
            additions = self.encoder_pyramid([skips[end] for end in ends], time)
            for end, addition in zip(ends, additions, strict=True):
                skips[end] = skips[end] + addition
            x = skips[-1]
        return x, skips

    def _decode(
        self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor, bias: Tensor | None
    ) -> Tensor:
        maps, gate = [], 0
        for position, block in enumerate(self.up_blocks):
            level = len(self.up_blocks) - 1 - position
            for index in range(len(block.resnets)):
                skip = skips.pop()
                if self.gates is not None:
                    skip = self.gates[gate](skip, x)
                gate += 1
                x = torch.cat([x, skip], dim=1)
                x = self._layer(block, "up", level, index, x, time, context, bias)
            maps.append(x)
            for upsampler in block.upsamplers or ():
                x = upsampler(x, skips[-1].shape[2:])
        if self.decoder_pyramid is not None:
            x = x + self.decoder_pyramid(maps)
        return x

    def _layer(
        self,
        block: Any,
        side: str,
        level: int,
        index: int,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        x = block.resnets[index](x, time)
        if getattr(block, "has_cross_attention", False):
            x = block.attentions[index](
                x, encoder_hidden_states=context, encoder_attention_mask=bias, return_dict=False
            )[0]
        members: Any = self.context_attention
        if members is not None and f"{side}{level}" in members:
            x = members[f"{side}{level}"][index](x, context, bias)
        return x


def _heads(config: Any, level: int) -> int:
    heads = config.num_attention_heads or config.attention_head_dim
    return int(heads if isinstance(heads, int) else heads[level])


def build_unet(
    channels: Sequence[int] = (80, 144, 224),
    latent_channels: int = 16,
    sample_size: int = 16,
    attention: Sequence[Attention] = ("none", "full", "full"),
    heads: int = 4,
    groups: int = 16,
    layers: int = 1,
    context_width: int = 192,
    pooled_width: int = 256,
    **parts: Any,
) -> MedicalUNet:
    """A U-Net over (batch, latent_channels, sample_size, sample_size) latents.

    Args:
        channels: Width of each level, finest first.
        attention: Each level's attention, finest first (see `Attention`).
        heads: Attention heads (diffusers calls this argument `attention_head_dim`).
        groups: Groups of the group normalisations.
        layers: Residual blocks a level in the encoder (one more in the decoder).
        context_width: Width of the context tokens.
        pooled_width: Width of the pooled condition that is added to the time embedding; 0 is none.
        **parts: Parts of `MedicalUNet`: gated_skips, pyramid_attention, feature_pyramid.
    """
    full = [kind == "full" for kind in attention]
    pooling: dict[str, Any] = {}
    if pooled_width:
        pooling = {
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": pooled_width,
        }
    return MedicalUNet(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in full),
        up_block_types=tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in full[::-1]),
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        cross_attention_dim=context_width,
        attention_head_dim=heads,
        norm_num_groups=groups,
        context_levels=[level for level, kind in enumerate(attention) if kind == "cross"],
        **pooling,
        **parts,
    )


def load_trained(unet: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Load trained weights into a U-Net that may have parts which the weights lack.

    Returns:
        The parts that keep their start, by name.

    Raises:
        ValueError: Any other difference, by the first name that differs.
    """
    own = unet.state_dict()
    missing = [name for name in own if name not in state]
    fresh = sorted({name.split(".")[0] for name in missing} & set(PARTS))
    strange = [name for name in missing if name.split(".")[0] not in PARTS]
    strange += [name for name in state if name not in own]
    strange += [name for name in state if name in own and state[name].shape != own[name].shape]
    if strange:
        raise ValueError(f"{strange[0]} and {len(strange) - 1} more weights do not fit")
    unet.load_state_dict({**own, **state})
    return fresh


@torch.no_grad()
def cost(unet: MedicalUNet, tokens: int = 52) -> dict[str, dict[str, int]]:
    """Parameters and floating-point operations of one forward pass of one picture.

    Returns:
        `{"parameters": {...}, "flops": {...}}`, each with `total` and every part that is on.
    """
    config = unet.config
    first = next(unet.parameters())
    side, width = config.sample_size, config.projection_class_embeddings_input_dim
    counter = FlopCounterMode(display=False)
    mode = unet.training
    unet.eval()
    with counter:
        unet(
            first.new_zeros(1, config.in_channels, side, side),
            first.new_zeros(1),
            first.new_zeros(1, tokens, config.cross_attention_dim),
            class_labels=None if width is None else first.new_zeros(1, width),
        )
    unet.train(mode)
    flops = {
        name.removeprefix("MedicalUNet."): sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
    }
    parts = {part: getattr(unet, part) for part in PARTS if getattr(unet, part) is not None}
    return {
        "parameters": {
            "total": sum(p.numel() for p in unet.parameters()),
            **{name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        },
        "flops": {
            "total": counter.get_total_flops(),
            **{
                name: sum(flops.get(entry, 0) for entry in _called(name, part))
                for name, part in parts.items()
            },
        },
    }


def _called(name: str, module: nn.Module) -> list[str]:
    # Lists of modules are not called themselves: their members are counted.
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        return [
            entry
            for key, member in module.named_children()
            for entry in _called(f"{name}.{key}", member)
        ]
    return [name]

"""The compact U-Net: diffusers' conditional U-Net at sizes that two processor cores can train.

Self- and cross-attention at the coarser levels, few heads; conditions arrive as tokens and, pooled,
in the time embedding. Knows nothing of what the conditions mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import UNet2DConditionModel


def compact_unet(
    channels: Sequence[int] = (80, 144, 224),
    latent_channels: int = 16,
    sample_size: int = 16,
    cross_attention: Sequence[bool] = (False, True, True),
    heads: int = 4,
    groups: int = 16,
    context_width: int = 192,
    pooled_width: int = 256,
) -> UNet2DConditionModel:
    """A v-predicting U-Net over (batch, latent_channels, 16, 16) latents.

    Args:
        channels: Width of each level, finest first.
        cross_attention: Whether each level has attention, finest first.
        heads: Attention heads (diffusers calls this argument `attention_head_dim`).
        groups: Groups of the group normalisations.
        context_width: Width of the context tokens.
        pooled_width: Width of the pooled condition that is added to the time embedding.
    """
    down = tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in cross_attention)
    up = tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(cross_attention))
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        cross_attention_dim=context_width,
        attention_head_dim=heads,
        norm_num_groups=groups,
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=pooled_width,
    )

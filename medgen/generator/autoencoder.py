"""The compact autoencoder: 256x256 pictures to 16x16 latents and back.

Pixel-unshuffle by 4 does the first halvings for free, residual convolutions do the rest. Latents
are bounded by a scaled tanh and trained with added noise, which does the work of a KL term
(cf. Rombach et al. 2022, arXiv 2112.10752; Chen et al. 2024, DC-AE, arXiv 2410.10733).
Knows nothing of text or diffusion.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

_BEFORE_OUTPUT = -4
"""Where the decoder's last norm, activation, convolution and shuffle begin."""


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, H, W) -> the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Grain(nn.Module):
    """Adds noise to features, as strong as the features say: texture that no latent can hold.

    Per-pixel noise with learned strength (Karras et al. 2019, arXiv 1812.04948); here the strength
    depends on the place.
    """

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.norm = nn.GroupNorm(8, channels)
        self.strength = nn.Conv2d(channels, channels, 3, padding=1)
        self.spread = nn.Conv2d(patch * patch, channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Features (batch, channels, H, W) and noise (batch, 1, patch x H, patch x W)."""
        spread = self.spread(F.pixel_unshuffle(noise, self.patch))
        return x + self.out(self.strength(F.silu(self.norm(x))) * spread)


def _level(channels: int, blocks: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(blocks)]


def _encoder(
    channels: tuple[int, int, int], blocks: tuple[int, int, int], latent_channels: int, patch: int
) -> nn.Sequential:
    fine, middle, coarse = channels
    return nn.Sequential(
        nn.PixelUnshuffle(patch),
        nn.Conv2d(3 * patch * patch, fine, 3, padding=1),
        *_level(fine, blocks[0]),
        nn.Conv2d(fine, middle, 3, stride=2, padding=1),
        *_level(middle, blocks[1]),
        nn.Conv2d(middle, coarse, 3, stride=2, padding=1),
        *_level(coarse, blocks[2]),
        nn.Conv2d(coarse, latent_channels, 3, padding=1),
    )


class CompactAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Images (batch, 3, H, W) in [-1, 1] <-> latents (batch, C, H/16, W/16) in (-bound, bound).

    C is `latent_channels`, and `detail_channels` more where a second encoder was added later for
    what the first ones do not hold: the first ones keep their meaning.
    """

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, int, int] = (48, 96, 160),
        encoder_blocks: tuple[int, int, int] = (1, 1, 1),
        decoder_blocks: tuple[int, int, int] = (2, 2, 2),
        latent_channels: int = 16,
        patch: int = 4,
        bound: float = 4.0,
        grain: bool = False,
        detail_channels: int = 0,
        detail_widths: tuple[int, int, int] = (40, 72, 96),
    ) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.encoder = _encoder(channels, encoder_blocks, latent_channels, patch)
        self.detail_encoder = (
            _encoder(detail_widths, (1, 1, 1), detail_channels, patch) if detail_channels else None
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels + detail_channels, coarse, 3, padding=1),
            *_level(coarse, decoder_blocks[2]),
            nn.Conv2d(coarse, middle * 4, 1),
            nn.PixelShuffle(2),
            *_level(middle, decoder_blocks[1]),
            nn.Conv2d(middle, fine * 4, 1),
            nn.PixelShuffle(2),
            *_level(fine, decoder_blocks[0]),
            nn.GroupNorm(8, fine),
            nn.SiLU(),
            nn.Conv2d(fine, 3 * patch * patch, 3, padding=1),
            nn.PixelShuffle(patch),
        )
        self.grainer = Grain(fine, patch) if grain else None

    def encode(self, images: Tensor) -> Tensor:
        """Latents of images: (batch, 3, H, W) in [-1, 1] -> (batch, C, H/16, W/16)."""
        bound = self.config.bound
        latents = self.encoder(images)
        if self.detail_encoder is not None:
            latents = torch.cat([latents, self.detail_encoder(images)], 1)
        return bound * torch.tanh(latents / bound)

    def decode(self, latents: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images of latents: (batch, C, h, w) -> (batch, 3, 16h, 16w), about [-1, 1].

        Args:
            latents: What `encode` gives.
            noise: (batch, 1, 16h, 16w) standard normal, for a decoder with grain; none when None.
        """
        if self.grainer is None or noise is None:
            return self.decoder(latents)
        return self.decoder[_BEFORE_OUTPUT:](
            self.grainer(self.decoder[:_BEFORE_OUTPUT](latents), noise)
        )

    def forward(self, images: Tensor, noise: float = 0.0) -> Tensor:
        """Reconstruction of images through latents with added Gaussian noise of that deviation."""
        latents = self.encode(images)
        if noise:
            latents = latents + noise * torch.randn_like(latents)
        return self.decode(latents)

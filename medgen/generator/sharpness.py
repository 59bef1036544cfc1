"""What makes a decoder sharp: a patch discriminator and distances between features.

Patch discriminator with hinge loss (Isola et al. 2017, arXiv 1611.07004; Lim and Ye 2017, arXiv
1705.02894) and a projection of the class (Miyato and Koyama 2018, arXiv 1802.05637); feature
distance after Zhang et al. 2018 (arXiv 1801.03924), on the verifier's reader, which evaluation
does not use. Used in training only.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.measure.reader import Reader

TEXTURE = 8.0
"""How much the discriminator's view of fine detail is enlarged."""


OCTAVES = 3
FAINT = 0.01
"""Detail of about one grey level: fainter counts as none."""


class PatchDiscriminator(nn.Module):
    """Says for each patch of an image whether it is real, given the image's class.

    It sees the image and, enlarged, what a blur takes away from it: texture is faint beside
    outlines, and without this it had not learned to tell blurred from real in 40 steps.
    """

    def __init__(self, classes: int, width: int = 40) -> None:
        super().__init__()
        widths = [6, width, 2 * width, 4 * width]
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 4, stride=2, padding=1),
                nn.Identity() if level == 0 else nn.GroupNorm(8, outputs),
                nn.LeakyReLU(0.2),
            )
            for level, (inputs, outputs) in enumerate(pairwise(widths))
        )
        deepest = widths[-1]
        self.deepest = nn.Sequential(
            nn.Conv2d(deepest, deepest, 3, padding=1), nn.GroupNorm(8, deepest), nn.LeakyReLU(0.2)
        )
        self.patch = nn.Conv2d(deepest, 1, 1)
        self.of_class = nn.Embedding(classes, deepest)
        nn.init.zeros_(self.of_class.weight)

    def forward(self, images: Tensor, classes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge images.

        Args:
            images: (batch, 3, H, W) in [-1, 1].
            classes: (batch,) indices.

        Returns:
            Logits (batch, 1, H/8, W/8), higher for real, and the features of each level.
        """
        h = torch.cat([images, TEXTURE * (images - _blurred(images))], 1)
        features = []
        for level in self.levels:
            h = level(h)
            features.append(h)
        h = self.deepest(h)
        projection = (h * self.of_class(classes)[:, :, None, None]).mean(1, keepdim=True)
        return self.patch(h) + projection, features


def hinge_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """The discriminator's loss from its logits on real and on drawn images."""
    return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()


def texture_distance(output: Tensor, target: Tensor) -> Tensor:
    """Mean difference of the log energies of fine detail, place by place.

    Three octaves of a Laplacian pyramid, energies over 8x8 windows: how much texture there is and
    where, not its every grain, which no decoder can know and which L1 therefore smooths away.

    Args:
        output: (batch, 3, H, W) in [-1, 1].
        target: In the same shape.
    """
    distance = output.new_zeros(())
    for _ in range(OCTAVES):
        coarse = [F.avg_pool2d(images, 2) for images in (output, target)]
        ours, theirs = (
            torch.log(
                F.avg_pool2d((images - F.interpolate(small, scale_factor=2.0)).square(), 8)
                + FAINT**2
            )
            for images, small in zip((output, target), coarse, strict=True)
        )
        distance = distance + F.l1_loss(ours, theirs)
        output, target = coarse
    return distance / OCTAVES


def grid_distance(output: Tensor, target: Tensor, patch: int = 4) -> Tensor:
    """Mean difference of the patterns that repeat from patch to patch.

    The decoder draws patches of pixels at once; a grid of their shape has the energy of texture,
    so that `texture_distance` alone is met by a grid.

    Args:
        output: (batch, 3, H, W) in [-1, 1].
        target: In the same shape.
        patch: Side of the decoder's patches.
    """
    ours, theirs = (
        F.avg_pool2d(F.pixel_unshuffle(images - _blurred(images), patch), 8)
        for images in (output, target)
    )
    return F.l1_loss(ours, theirs)


def _blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), 5, 1)


class ReaderFeatures(nn.Module):
    """Distance between images in the early features of a reader's residual trunk."""

    def __init__(self, reader: Reader, blocks: int = 3) -> None:
        super().__init__()
        layers = list(reader.net.trunk.children())  # type: ignore[union-attr]
        self.stem = nn.Sequential(*layers[:3])
        self.blocks = nn.ModuleList(layers[3 : 3 + blocks])
        self.requires_grad_(False).eval()

    def _features(self, images: Tensor) -> list[Tensor]:
        h = self.stem(images)
        features = [h]
        for block in self.blocks:
            h = block(h)
            features.append(h)
        return features

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared distance of unit-length features of (batch, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            wanted = self._features(target)
        distance = output.new_zeros(())
        for ours, theirs in zip(self._features(output), wanted, strict=True):
            distance = distance + (
                (F.normalize(ours, dim=1) - F.normalize(theirs, dim=1)).square().sum(1).mean()
            )
        return distance / len(wanted)

"""Gradient guidance: the drawing is moved, step by step, to where a classifier sees what was asked.

At each step the clean picture that the model foresees is decoded and read; its latents are moved
against the gradient of the reader's loss, by a fixed share of their own size (classifier guidance,
Dhariwal and Nichol 2021, arXiv 2105.05233, on the foreseen picture as in Bansal et al. 2023, arXiv
2302.07121). No gradient goes through the U-Net, so that a step costs one pass of decoder and reader
forward and back. A network can be pleased without a picture being right: the reader must be
another than the one that judges the result. Knows latents, classes and nothing of findings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from medgen.errors import BadInput
from medgen.measure.reader import Reader

Aims = Mapping[str, Sequence[str]]
"""Head of the reader to the classes of which one is wanted."""

WEIGHTS = Path(__file__).parent / "weights" / "steering_reader"


@dataclass(frozen=True)
class Push:
    """How hard pictures are pushed, and until when.

    Attributes:
        last_time: Below it (0 clean, 1 noise) nothing is steered: what is left to decide is
            texture, by which a reader is deceived sooner than a picture is changed.
        step: How far latents move in one step, in parts of the root of their number.
        sure: Probability of the wanted classes at which a picture is left alone.
        views: Shifted and blurred views of a picture read at once: no pattern of pixels pleases
            them all.
    """

    last_time: float
    step: float
    sure: float
    views: int


DRAWING = Push(last_time=0.45, step=0.22, sure=0.98, views=4)
"""The sampler's own; chosen on development noise (docs/experiments/agent.md)."""


@lru_cache
def steering_reader() -> Reader:
    """The bundled reader that steers, loaded once a process: not the verifier's, which judges."""
    return Reader.load(WEIGHTS)


class Steering:
    """Moves foreseen latents towards what pictures aim at."""

    def __init__(
        self, reader: Reader, decode: Callable[[Tensor], Tensor], push: Push = DRAWING
    ) -> None:
        """Steer by a reader.

        Args:
            reader: Whose heads the aims name.
            decode: Standardised latents (n, channels, h, w) to images (n, 3, H, W) in [-1, 1].
            push: How hard.
        """
        self.reader, self.decode, self.push = reader, decode, push
        self._classes = {head.name: head.classes for head in reader.heads}

    def check(self, aims: Aims) -> None:
        """Say what is wrong with aims.

        Raises:
            BadInput: A head or class that the reader does not have.
        """
        for head, wanted in aims.items():
            known = self._classes.get(head)
            if known is None:
                raise BadInput(
                    f"aims: no head {head!r}: use one of {', '.join(sorted(self._classes))}"
                )
            for name in wanted:
                if name not in known:
                    raise BadInput(f"aims: {head} has no class {name!r}: {', '.join(known)}")

    def moved(
        self, clean: Tensor, aims: Sequence[Aims], draws: Sequence[torch.Generator]
    ) -> Tensor:
        """Foreseen latents a step nearer to the aims.

        Args:
            clean: (n, channels, h, w), standardised.
            aims: What each picture aims at; those that aim at nothing, or are sure, stay.
            draws: Of each picture, for its views.

        Returns:
            Latents in the same shape.
        """
        with torch.inference_mode(False), torch.enable_grad():
            latents = clean.clone().requires_grad_()
            images = self.decode(latents)
            (gradient,) = torch.autograd.grad(self._loss(images, aims, draws), latents)
        size = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        reach = self.push.step * math.sqrt(clean[0].numel())
        return clean - reach * torch.where(size > 0, gradient / size.clamp_min(1e-12), gradient)

    def _loss(
        self, images: Tensor, aims: Sequence[Aims], draws: Sequence[torch.Generator]
    ) -> Tensor:
        """How far all pictures are from their aims, together: each has its own gradient."""
        size = self.reader.size
        pixels = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        views = torch.cat([_view(pixels, draws) for _ in range(self.push.views)])
        logits = self.reader.split(self.reader.net(views)[1])
        limit = math.log(self.push.sure / (1 - self.push.sure))
        loss = 0.0 * views.sum()  # of pictures that aim at nothing
        for number in range(len(views)):
            for head, wanted in aims[number % len(aims)].items():
                loss = loss + F.relu(limit - self._odds(head, logits[head][number], wanted))
        return loss

    def _odds(self, head: str, logits: Tensor, wanted: Sequence[str]) -> Tensor:
        scaled = logits / self.reader.temperatures.get(head, 1.0)
        shown = torch.tensor([name in wanted for name in self._classes[head]])
        if bool(shown.all()):
            return scaled.new_full((), math.inf)
        return scaled[shown].logsumexp(0) - scaled[~shown].logsumexp(0)


def _view(pixels: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Each picture shifted by up to 4 pixels and blurred a little or not at all."""
    views = []
    for picture, draw in zip(pixels, draws, strict=True):
        down, right, blur = torch.randint(0, 9, (3,), generator=draw).tolist()
        padded = F.pad(picture[None], (4, 4, 4, 4), mode="replicate")
        cut = padded[:, :, down : down + picture.shape[1], right : right + picture.shape[2]]
        if blur % 2:
            cut = F.avg_pool2d(F.pad(cut, (1, 1, 1, 1), mode="replicate"), 3, 1)
        views.append(cut)
    return torch.cat(views)

"""Batches of a run: each a pure function of the seed and the step, whatever hardware runs it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medgen.generator import structured
from medgen.generator.conditioning import ConditionEncoder
from medgen.generator.pretrained_text import PretrainedTokenizer
from medgen.generator.text import TextTokenizer
from medgen.generator.training.config import DropoutConfig, TrainingConfig
from medgen.generator.training.latents import FreshLatents, KeptLatents
from medgen.generator.training.objective import STEPS, Objective
from medgen.generator.training.row_index import Row
from medgen.generator.training.rows import Draws, draw_conditions

HELD_OUT_BATCH = 64

Latents = KeptLatents | FreshLatents


class Batch(NamedTuple):
    """Noisy latents, what shall be predicted from them under which conditions, and weights."""

    noisy: Tensor
    times: Tensor
    ids: Tensor
    mask: Tensor
    modality: Tensor
    vector: Tensor
    target: Tensor
    weights: Tensor

    @property
    def size(self) -> int:
        """Pictures in it."""
        return len(self.times)

    def part(self, index: int, count: int) -> Batch:
        """The `index`-th of `count` equal parts."""
        size = len(self.times) // count
        return Batch(*(value[index * size : (index + 1) * size] for value in self))

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(value.to(device) for value in self))


class Batches:
    """Draws training and validation batches."""

    def __init__(
        self,
        config: TrainingConfig,
        rows: Sequence[Row],
        held_out: Sequence[Row],
        latents: Latents,
        held_out_latents: Latents | None,
        tokenizer: TextTokenizer | PretrainedTokenizer,
        conditions: ConditionEncoder,
    ) -> None:
        self.config = config
        self.rows = rows
        self.held_out_rows = held_out
        self.latents = latents
        self.held_out_latents = held_out_latents
        self.tokenizer = tokenizer
        self.conditions = conditions
        self.objective = Objective(config.objective)
        self.draws = Draws(rows, config.seed, config.batch)

    def training(self, step: int) -> Batch:
        """The batch of a step."""
        picks, generator = self.draws.of(step)
        latents = self.latents.read(picks.tolist(), generator)
        rows = [self.rows[i] for i in picks.tolist()]
        return self._batch(latents, rows, self.config.dropout, [self.config.seed, step])

    def held_out(self) -> Iterator[Batch]:
        """The validation fold, always under the same noise and captions."""
        if self.held_out_latents is None:
            return
        for start in range(0, len(self.held_out_rows), HELD_OUT_BATCH):
            end = min(len(self.held_out_rows), start + HELD_OUT_BATCH)
            latents = self.held_out_latents.read(range(start, end), None)
            chosen = [self.held_out_rows[i] for i in range(start, end)]
            yield self._batch(latents, chosen, None, [1, start])

    def _batch(
        self, latents: Tensor, rows: list[Row], dropout: DropoutConfig | None, key: list[int]
    ) -> Batch:
        random_ = random.Random(str(key))
        drawn = [draw_conditions(row, dropout, random_) for row in rows]
        modals = [modal for _, modal, _ in drawn]
        ids, mask = self.tokenizer(self.conditions.words([text for text, _, _ in drawn], modals))
        generator = torch.Generator().manual_seed(random_.getrandbits(60))
        mean, std = self.latents.mean, self.latents.std
        clean = (latents - mean) / std
        noise = torch.randn(clean.shape, generator=generator)
        clean = clean + self.config.latent_noise * noise / std
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, STEPS, (len(clean),), generator=generator)
        return Batch(
            noisy=self.objective.noisy(clean, noise, times),
            times=times,
            ids=ids,
            mask=mask,
            modality=self.conditions.modality_ids(modals),
            vector=structured.encode([conditions for _, _, conditions in drawn]),
            target=self.objective.target(clean, noise, times),
            weights=self.objective.weights(times),
        )


def batch_loss(prediction: Tensor, batch: Batch) -> Tensor:
    """Weighted mean squared error of a prediction (batch, channels, h, w)."""
    error = (prediction.float() - batch.target).square().mean((1, 2, 3))
    return (error * batch.weights).mean()

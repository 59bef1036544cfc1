"""Batches of policy training: rated images with signed weights or as pairs, real images beside.

Each batch is a function of the seed and the step. Latents of the log's images are encoded once and
kept. Winner and loser of a pair have one timestep and one noise. Knows the objectives' inputs;
nothing of the adapter.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from medgen.errors import BadInput
from medgen.feedback.objectives import advantages, preference_weights
from medgen.feedback.policy_config import PolicyConfig, RealShare
from medgen.feedback.policy_steering import LEAST_TIME, Wish, aims_that_paid
from medgen.feedback.preferences import Example, Preferences, held_out_prompts
from medgen.generator import structured
from medgen.generator.compact import CompactGenerator
from medgen.generator.training.batches import Batch, Batches
from medgen.generator.training.config import DropoutConfig, ObjectiveConfig, TrainingConfig
from medgen.generator.training.latents import KeptLatents, hash_weights, keep_latents
from medgen.generator.training.objective import STEPS, Objective
from medgen.generator.training.pictures import PackedPictures, PictureFiles, Pictures
from medgen.generator.training.row_index import RowIndex, index_rows

WORKERS = 2
CHECK_BATCH = 32
# That of configs/diffusion.yaml, which the bundled base was trained with.
REAL_DROPOUT = DropoutConfig(
    all=0.1, text=0.06, modality=0.08, structured=0.35, structured_each=0.15
)


class PolicyBatch(NamedTuple):
    """Rated images, with a signed weight each, and real ones.

    Of pairs, winners and losers alternate in `rated`, and `signed` is all ones. `together` is how
    many rated images are never parted, `wishes` what each is steered towards, where that is
    learned.
    """

    rated: Batch
    signed: Tensor
    real: Batch | None
    together: int
    wishes: tuple[Wish, ...] = ()

    @property
    def size(self) -> int:
        """Pictures in it."""
        return self.rated.size + (self.real.size if self.real is not None else 0)

    def part(self, index: int, count: int) -> PolicyBatch:
        """The `index`-th of `count` equal parts."""
        size = len(self.signed) // count
        return PolicyBatch(
            self.rated.part(index, count),
            self.signed[index * size : (index + 1) * size],
            self.real.part(index, count) if self.real is not None else None,
            self.together,
            self.wishes[index * size : (index + 1) * size],
        )

    def to(self, device: torch.device) -> PolicyBatch:
        """The same on a device."""
        real = self.real.to(device) if self.real is not None else None
        return self._replace(rated=self.rated.to(device), signed=self.signed.to(device), real=real)


def _shares(examples: Sequence[Example]) -> np.ndarray:
    """Cumulated chances (n,) of items: modalities weigh alike, and in each its groups.

    A log has many images of some requests. Were they to weigh as they come, the look of the most
    frequent finding would be drawn whatever is asked (docs/experiments/rlhf.md).
    """
    items = Counter(one.group for one in examples)
    groups = Counter(modality for modality, _ in {(one.modality, one.group) for one in examples})
    chances = [1.0 / (groups[one.modality] * items[one.group]) for one in examples]
    total = np.cumsum(chances)
    return total / total[-1] if len(total) else total


class PolicyData:
    """Training and held-out batches of a log's preferences and of real images.

    Raises:
        BadInput: Nothing to train on is left, or an image cannot be read.
    """

    def __init__(
        self, config: PolicyConfig, base: CompactGenerator, folder: Path, preferences: Preferences
    ) -> None:
        self.config, self.base = config, base
        self.cache = config.cache or config.out
        self.autoencoder_hash = hash_weights(folder / "autoencoder")
        predicts = base.scheduler_config["prediction_type"]
        self.objective = Objective(
            ObjectiveConfig(
                prediction=predicts,
                schedule=base.scheduler_config["beta_schedule"],
                # As the base was trained; capped weights have no bound for epsilon.
                weighting="min_snr" if predicts == "epsilon" else "capped",
            ),
            # Its own noise levels, whatever a schedule of that name has today.
            DDPMScheduler.from_config(base.scheduler_config),
        )
        aside = held_out_prompts(preferences, config.held_out_percent)
        self.training = preferences.where(preferences.prompts - aside)
        self.aside = preferences.where(aside)
        if not self.training.pairs:
            raise BadInput(
                "no better and worse image are left beside the held-out ones: rate "
                "more prompts, or lower held_out_percent"
            )
        examples = self.training.examples
        self.aims = aims_that_paid(examples) if config.method == "steered" else {}
        if config.method == "steered" and not self.aims:
            raise BadInput(
                "method steered: no request of the log has a steered image that was rated better "
                "than a plain one of the same noise: rate such pairs, or use another method"
            )
        self.latents = self._latents(examples)
        self.aside_latents = self._latents(self.aside.examples) if aside else None
        self.signed = self._signed()
        self.items = self._items()
        self.shares = _shares([examples[item[0]] for item in self.items])
        self.real = self._real(config.real, folder) if config.real is not None else None

    def _items(self) -> list[tuple[int, ...]]:
        """What is drawn from: pairs, images that tell something, or (steered) all images."""
        if self.config.method == "dpo":
            return list(self.training.pairs)
        if self.config.method == "steered":
            return [(index,) for index in range(len(self.training.examples))]
        return [(int(index),) for index in np.flatnonzero(self.signed.numpy())]

    def _signed(self) -> Tensor:
        rewards = torch.tensor([one.reward for one in self.training.examples])
        groups = torch.tensor([one.group for one in self.training.examples])
        config = self.config
        return preference_weights(
            advantages(rewards, groups), groups, config.temperature, config.limit, config.repulsion
        )

    def _latents(self, examples: Sequence[Example]) -> KeptLatents:
        rows = [{"image": one.path} for one in examples]
        return self._kept(PictureFiles(rows, self.base.size, "pad", WORKERS), len(rows))

    def _real_latents(self, real: RealShare, rows: RowIndex) -> KeptLatents:
        if real.images is not None:
            return self._kept(PackedPictures(real.images, rows), len(rows))
        return self._kept(PictureFiles(rows, self.base.size, "pad", WORKERS), len(rows))

    def _kept(self, pictures: Pictures, count: int) -> KeptLatents:
        base, hashed = self.base, self.autoencoder_hash
        never = [False] * count
        latents = keep_latents(self.cache, base.autoencoder, pictures, count, 0, never, hashed)
        # The base expects the standardisation that it was trained with.
        latents.mean, latents.std = base.mean[0], base.std[0]
        return latents

    def _real(self, real: RealShare, folder: Path) -> Batches | None:
        config = self.config
        rows, held_out = index_rows(real.table, real.joined, self.cache).folds()
        rows, held_out = (self._drawable(part) for part in (rows, held_out))
        spread = np.linspace(0, len(held_out) - 1, min(real.held_out, len(held_out))).astype(int)
        held_out = RowIndex(held_out.path, held_out.chosen[np.unique(spread)])
        if not len(rows):
            raise BadInput(f"real.table: {real.table} has no training row of what is drawn here")
        made_of = TrainingConfig(
            table=real.table,
            out=config.out,
            seed=config.seed,
            steps=config.steps,
            batch=max(1, config.real_count),
            lr=config.lr,
            decay_from=config.decay_from,
            autoencoder=folder / "autoencoder",
            latent_noise=config.latent_noise,
            objective=self.objective.config,
            dropout=REAL_DROPOUT,
        )
        kept = self._real_latents(real, rows)
        aside = self._real_latents(real, held_out) if len(held_out) else None
        words, conditions = self.base.tokenizer, self.base.conditions
        return Batches(made_of, rows, held_out, kept, aside, words, conditions)

    def _drawable(self, rows: RowIndex) -> RowIndex:
        """Rows of the modalities that are trained, or (steered) of all that are drawn.

        What steering teaches is to leave the others as they were, which their own images say.
        """
        every = self.config.method == "steered" or not self.config.modalities
        wanted = set(self.base.modalities if every else self.config.modalities)
        return RowIndex(
            rows.path, rows.chosen[[i for i, row in enumerate(rows) if row["modal"] in wanted]]
        )

    def batch(self, step: int) -> PolicyBatch:
        """The batch of a step."""
        config = self.config
        generator = np.random.default_rng([config.seed, step])
        together = len(self.items[0])
        drawn = self.shares.searchsorted(generator.random(config.rated // together), "right")
        numbers = [index for item in drawn for index in self.items[int(item)]]
        examples, key = self.training.examples, f"{config.seed} {step}"
        wishes: tuple[Wish, ...] = ()
        if config.method == "steered":
            rated, wishes = self._wished(
                self.latents, examples, numbers, key, config.condition_dropout
            )
        else:
            rated = self._rated(
                self.latents, examples, numbers, together, key, config.condition_dropout
            )
        weighted = config.method == "reward_weighted"
        signed = self.signed[numbers] if weighted else torch.ones(len(numbers))
        return PolicyBatch(rated, signed, self._real_batch(step), together, wishes)

    def _real_batch(self, step: int) -> Batch | None:
        wanted = self.real is not None and self.config.real_count
        return self.real.training(step) if wanted and self.real is not None else None

    def held_out_pairs(self) -> Iterator[Batch]:
        """Pairs of held-out prompts, winner and loser in turn, always under the same noise."""
        if self.aside_latents is None or not self.config.held_out_pairs:
            return
        count = min(len(self.aside.pairs), self.config.held_out_pairs)
        spread = np.unique(np.linspace(0, len(self.aside.pairs) - 1, count).astype(int))
        numbers = [index for pair in spread for index in self.aside.pairs[int(pair)]]
        for start in range(0, len(numbers), CHECK_BATCH):
            part = numbers[start : start + CHECK_BATCH]
            yield self._rated(self.aside_latents, self.aside.examples, part, 2, f"check {start}", 0)

    def held_out_wishes(self) -> Iterator[tuple[Batch, tuple[Wish, ...]]]:
        """Images of held-out prompts and what they are steered towards, where steering paid."""
        if self.aside_latents is None:
            return
        examples = self.aside.examples
        paid = [i for i, one in enumerate(examples) if self.aims.get(one.group)]
        count = min(len(paid), self.config.held_out_pairs)
        places = {int(place) for place in np.linspace(0, len(paid) - 1, count)} if count else set()
        numbers = [paid[place] for place in sorted(places)]
        for start in range(0, len(numbers), CHECK_BATCH):
            part = numbers[start : start + CHECK_BATCH]
            yield self._wished(self.aside_latents, examples, part, f"wished {start}", 0)

    def held_out_real(self) -> Iterator[Batch]:
        """What fidelity is measured on: real images, else the log's, of held-out prompts."""
        if self.real is not None:
            yield from self.real.held_out()
        elif self.aside_latents is not None:
            count = len(self.aside.examples)
            for start in range(0, count, CHECK_BATCH):
                part = list(range(start, min(count, start + CHECK_BATCH)))
                yield self._rated(
                    self.aside_latents, self.aside.examples, part, 1, f"own {start}", 0
                )

    def _wished(
        self,
        latents: KeptLatents,
        examples: Sequence[Example],
        numbers: Sequence[int],
        key: str,
        dropout: float,
    ) -> tuple[Batch, tuple[Wish, ...]]:
        """Images with wishes; those whose condition is dropped keep the modality, and wish nothing.

        That is what the sampler's branch without a prompt hears, which is to stay as it was.
        """
        random_ = random.Random(f"dropped {key}")
        dropped = [random_.random() < dropout for _ in numbers]
        batch = self._rated(latents, examples, numbers, 1, key, 0, LEAST_TIME, dropped)
        wishes = tuple(
            Wish({} if gone else self.aims.get(examples[number].group, {}), random_.getrandbits(32))
            for gone, number in zip(dropped, numbers, strict=True)
        )
        return batch, wishes

    def _rated(
        self,
        latents: KeptLatents,
        examples: Sequence[Example],
        numbers: Sequence[int],
        together: int,
        key: str,
        dropout: float,
        least_time: int = 0,
        only_modality: Sequence[bool] | None = None,
    ) -> Batch:
        random_ = random.Random(key)
        generator = torch.Generator().manual_seed(random_.getrandbits(60))
        groups = len(numbers) // together
        std = latents.std
        clean = (latents.read(numbers, None) - latents.mean) / std
        shape = (groups, 1, *clean.shape[1:])

        def shared() -> Tensor:
            noise = torch.randn(shape, generator=generator)
            return noise.expand(groups, together, *clean.shape[1:]).reshape(clean.shape)

        clean = clean + self.config.latent_noise * shared() / std
        noise = shared()
        times = torch.randint(least_time, STEPS, (groups, 1), generator=generator)
        times = times.expand(groups, together).reshape(-1)
        # The conditions of a pair go together too.
        dropped = [random_.random() < dropout for _ in range(groups) for _ in range(together)]
        if together > 1:
            dropped = [dropped[i - i % together] for i in range(len(dropped))]
        told = [examples[i].conditioning for i in numbers]
        modals = [None if gone else one.modality for gone, one in zip(dropped, told, strict=True)]
        if only_modality is not None:
            dropped = list(only_modality)
        texts = ["" if gone else one.prompt for gone, one in zip(dropped, told, strict=True)]
        given = [{} if gone else one.structured for gone, one in zip(dropped, told, strict=True)]
        conditions = self.base.conditions
        ids, mask = self.base.tokenizer(conditions.words(texts, modals))
        return Batch(
            noisy=self.objective.noisy(clean, noise, times),
            times=times,
            ids=ids,
            mask=mask,
            modality=conditions.modality_ids(modals),
            vector=structured.encode(given),
            target=self.objective.target(clean, noise, times),
            weights=self.objective.weights(times),
        )

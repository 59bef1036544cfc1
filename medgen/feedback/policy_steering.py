"""What steering makes of a foreseen picture, as a target for an adapter that needs no steering.

Steering by gradient (`medgen.generator.steering`) costs a pass of decoder and reader at every step
of every drawing. Where the log says that the steered image of a request was rated better than the
plain one of the same noise, an adapter can learn to foresee the moved picture at once: reward
gradients (Clark et al. 2023, arXiv 2309.17400) one step at a time, amortised as guidance is in
distillation (Meng et al. 2023, arXiv 2210.03142). Where steering did not pay, and without a
request, the target is what the base foresees. Given a noisy picture the target is fixed but for the
reader's shifted views: it has none of the variance of denoising. Knows no files and no loop.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medgen.feedback.preferences import Example
from medgen.generator.compact import CompactGenerator
from medgen.generator.sampling import Levels
from medgen.generator.steering import WEIGHTS, Aims, Push, Steering
from medgen.generator.training.batches import Batch
from medgen.generator.training.objective import STEPS, Objective
from medgen.measure.reader import Reader

GENTLE = Push(last_time=0.15, step=0.08, sure=0.9, views=2)
"""What is learned: smaller steps than the sampler's, down to less noise."""
LEAST_TIME = round(GENTLE.last_time * STEPS)
"""Below this timestep nothing is steered, and nothing is learned."""


class Wish(NamedTuple):
    """What a picture of a batch is to be moved towards, and the seed of the reader's views."""

    aims: Aims
    seed: int


def aims_that_paid(examples: Sequence[Example]) -> dict[int, dict[str, list[str]]]:
    """By group, what images were steered towards, where raters liked them better than plain ones.

    Images of one group and one noise are compared; a group counts when more steered images won than
    lost. Of a group steered in several ways the most frequent of the winning aims are taken.

    Args:
        examples: Rated images, steered ones (with `conditioning.aims`) and plain ones.

    Returns:
        Head of the steering reader to wanted classes, by `Example.group`; groups that steering did
        not help are left out.
    """
    plain: dict[tuple[int, int], list[float]] = defaultdict(list)
    for one in examples:
        if not one.conditioning.aims:
            plain[one.group, one.conditioning.seed].append(one.reward)
    balance: Counter[int] = Counter()
    won: dict[int, Counter[str]] = defaultdict(Counter)
    kept: dict[str, dict[str, list[str]]] = {}
    for one in examples:
        aims = one.conditioning.aims
        for reward in plain[one.group, one.conditioning.seed] if aims else ():
            balance[one.group] += (one.reward > reward) - (one.reward < reward)
            if one.reward > reward:
                won[one.group][repr(sorted(aims.items()))] += 1
                kept[repr(sorted(aims.items()))] = aims
    return {
        group: kept[won[group].most_common(1)[0][0]] for group, sum_ in balance.items() if sum_ > 0
    }


class SteeredTargets:
    """Targets of an adapter: the base's prediction, moved as steering would move it."""

    def __init__(self, base: CompactGenerator, objective: Objective, reach: float) -> None:
        """Targets on a base.

        Args:
            base: Whose decoder and standardisation are used.
            objective: Of the base's noise levels and prediction.
            reach: How far, in steps of `GENTLE`.
        """
        self.base, self.objective, self.reach = base, objective, reach
        # A reader of its own: it goes to the device of the training, drawing's stays.
        self.steering = Steering(Reader.load(WEIGHTS), self._decode, GENTLE)

    def _decode(self, latents: Tensor) -> Tensor:
        base = self.base
        base.autoencoder.to(latents.device)
        self.steering.reader.net.to(latents.device)
        mean, std = base.mean.to(latents.device), base.std.to(latents.device)
        return base.autoencoder.decode(latents * std + mean, None)

    def check(self, every: Mapping[int, Aims]) -> None:
        """Say what is wrong with aims.

        Raises:
            BadInput: A head or class that the steering reader does not have.
        """
        for aims in every.values():
            self.steering.check(aims)

    def of(self, batch: Batch, predicted: Tensor, wishes: Sequence[Wish]) -> Batch:
        """The batch with the moved prediction as its target.

        Args:
            batch: Noisy latents and times.
            predicted: The base's prediction for it, in the shape of the latents.
            wishes: Of each picture; one without aims keeps the base's prediction.

        Returns:
            `batch` with `target` (n, channels, h, w) in float32, without a gradient.
        """
        chosen = [index for index, wish in enumerate(wishes) if wish.aims]
        target = predicted.detach().float().clone()
        if chosen:
            noisy = batch.noisy[chosen]
            alphas = self.objective.scheduler.alphas_cumprod.to(noisy.device)
            alpha = alphas[batch.times[chosen]].view(-1, 1, 1, 1)
            levels = Levels(alpha, self.objective.config.prediction)
            clean = levels.clean(target[chosen], noisy)
            draws = [torch.Generator().manual_seed(wishes[index].seed) for index in chosen]
            moved = self.steering.moved(clean, [wishes[index].aims for index in chosen], draws)
            target[chosen] = levels.predicted(clean + self.reach * (moved - clean), noisy)
        return batch._replace(target=target)

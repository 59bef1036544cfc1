"""Policy training: an adapter over the compact generator that draws what was preferred.

Reward-weighted denoising (default), Diffusion-DPO or steering that paid, on accelerate, by the
loop that trains generators: one core or several GPUs, resumed from the last checkpoint after a
kill. The base's weights are frozen and never written; the reference is the same U-Net with its
adapter off. Every check measures held-out prompts (does the adapter tell better from worse?) and
fidelity (does it still denoise real images?), and training stops when either gets worse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from medgen.errors import BadInput
from medgen.feedback.exchange import log_digest
from medgen.feedback.log import FeedbackLog
from medgen.feedback.objectives import (
    displacement,
    dpo_loss,
    implicit_margins,
    reward_weighted_loss,
)
from medgen.feedback.policy_config import PolicyConfig
from medgen.feedback.policy_data import PolicyBatch, PolicyData
from medgen.feedback.policy_run import PolicyCheck, PolicyRun
from medgen.feedback.policy_steering import SteeredTargets
from medgen.feedback.preferences import Reward, read_preferences
from medgen.generator.adapter import AdapterLineage, base_hash, read_lineage, write_adapter
from medgen.generator.backends import BUNDLED
from medgen.generator.compact import CompactGenerator
from medgen.generator.training.adapters import (
    adapter_weights,
    add_adapter,
    load_adapter_weights,
)
from medgen.generator.training.batches import Batch
from medgen.generator.training.config import LoopConfig
from medgen.generator.training.progress import LineReporter, Reporter
from medgen.generator.training.session import make_accelerator, stop_signal

PLACES = {"out", "cache", "log"}  # where things lie, which changes nothing of an adapter
# What a training that goes on may have otherwise than it began: the loop's own entries but the
# seed, the base and the log (told by their hashes), where real images lie, and when it stops.
FREE = {*LoopConfig.model_fields, *PLACES, "kind", "generator", "real"} - {"seed"}
FREE |= {"held_out_pairs", "patience", "fidelity_tolerance"}


class PolicyModel(nn.Module):
    """The base's U-Net with an adapter, behind its frozen encoders."""

    def __init__(self, base: CompactGenerator) -> None:
        super().__init__()
        self.text, self.conditions, self.unet = base.text, base.conditions, base.unet

    def predict(self, batch: Batch) -> Tensor:
        """The prediction, in the shape of the latents."""
        with torch.no_grad():
            states, pooled = self.text(batch.ids, batch.mask)
            context = self.conditions(states, batch.mask, pooled, batch.modality, batch.vector)
        predicted: Tensor = self.unet(
            batch.noisy,
            batch.times,
            encoder_hidden_states=context.states,
            encoder_attention_mask=context.mask,
            class_labels=context.pooled,
        ).sample
        return predicted.float()

    def forward(self, batch: Batch) -> Tensor:
        """Weighted squared errors of the prediction, one an image: (n,)."""
        return (self.predict(batch) - batch.target).square().mean((1, 2, 3)) * batch.weights

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The base alone: the adapter off, and no gradient."""
        self.unet.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            self.unet.enable_adapters()


class PolicyTask:
    """The `Task` of a `PolicyConfig`."""

    average: nn.Module | None = None

    def __init__(
        self,
        config: PolicyConfig,
        base: CompactGenerator,
        data: PolicyData,
        lineage: AdapterLineage,
    ) -> None:
        self.config, self.data, self.lineage = config, data, lineage
        for part in (base.text, base.conditions, base.unet):
            part.requires_grad_(False)
        torch.manual_seed(config.seed)
        add_adapter(base.unet, _Lora(config), torch.device("cpu"), torch.float32)
        self.model: PolicyModel = PolicyModel(base)
        self.known: list[Tensor] | None = None
        self.asked: list[tuple[Batch, float]] | None = None
        self.steered: SteeredTargets | None = None
        if config.method == "steered":
            self.steered = SteeredTargets(base, data.objective, config.reach)
            self.steered.check(data.aims)

    def batch(self, step: int) -> PolicyBatch:
        """See `Task.batch`."""
        return self.data.batch(step)

    def held_out(self) -> Iterator[Any]:
        """Nothing: `check` measures."""
        return iter(())

    def loss(self, model: nn.Module, batch: PolicyBatch) -> Tensor:
        """The objective on rated images, and the denoising loss of real ones beside it."""
        if self.steered is not None:
            return self._steered_loss(self.steered, model, batch)
        config, reference = self.config, None
        if config.method == "dpo" or config.repulsion:
            with self.model.reference():
                reference = self.model(batch.rated)
        errors = model(batch.rated)
        if config.method == "dpo":
            assert reference is not None
            worse = displacement(errors[::2], reference[::2])
            margins = _margins(errors, reference) - config.anchor * worse
            loss = dpo_loss(margins, config.beta)
        else:
            loss = reward_weighted_loss(errors, batch.signed, reference, config.margin)
        if batch.real is not None and config.real is not None:
            share = config.real.share / (1 - config.real.share)
            # DPO's errors count beta / 2 times.
            scale = config.beta / 2 if config.method == "dpo" else 1.0
            loss = loss + config.real.weight * share * scale * model(batch.real).mean()
        return loss

    def _steered_loss(
        self, steered: SteeredTargets, model: nn.Module, batch: PolicyBatch
    ) -> Tensor:
        """Distance from the moved prediction on rated images, from the base's own on real ones."""
        with self.model.reference():
            asked = steered.of(batch.rated, self.model.predict(batch.rated), batch.wishes)
        loss: Tensor = model(asked).mean()
        if batch.real is not None and self.config.real is not None:
            with self.model.reference():
                same = batch.real._replace(target=self.model.predict(batch.real))
            share = self.config.real.share / (1 - self.config.real.share)
            loss = loss + self.config.real.weight * share * model(same).mean()
        return loss

    def _steering_left(self, steered: SteeredTargets, device: torch.device) -> float | None:
        """Of what steering moves on held-out prompts, the share that is not foreseen."""
        if self.asked is None:
            self.asked = []
            for plain, wishes in self.data.held_out_wishes():
                batch = plain.to(device)
                with self.model.reference():
                    predicted = self.model.predict(batch)
                    asked = steered.of(batch, predicted, wishes)
                    self.asked.append((asked, float(self.model(asked).sum())))
        moved = sum(size for _, size in self.asked)
        left = sum(float(self.model(batch).sum()) for batch, _ in self.asked)
        return left / moved if moved else None

    @torch.no_grad()
    def check(self, step: int, device: torch.device) -> PolicyCheck:
        """What is measured on held-out prompts and images."""
        self.model.eval()
        pairs = [batch.to(device) for batch in self.data.held_out_pairs()]
        if self.known is None:  # the reference does not change
            with self.model.reference():
                self.known = [self.model(batch) for batch in pairs]
        errors = [self.model(batch) for batch in pairs]
        margins = [_margins(one, known) for one, known in zip(errors, self.known, strict=True)]
        total, count = 0.0, 0
        for batch in self.data.held_out_real():
            total += float(self.model(batch.to(device)).sum())
            count += batch.size
        left = None if self.steered is None else self._steering_left(self.steered, device)
        self.model.train()
        joined = torch.cat(margins) if margins else None
        return PolicyCheck(
            step=step,
            preference_loss=None if joined is None else float(dpo_loss(joined, self.config.beta)),
            preference_accuracy=None
            if joined is None
            else float(((joined > 0).float() + 0.5 * (joined == 0).float()).mean()),
            preferred_loss=float(torch.cat(errors)[::2].mean()) if errors else None,
            steering_left=left,
            fidelity_loss=total / count if count else None,
        )

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """See `Task.weights`: the adapter's alone."""
        return adapter_weights(self.model.unet)

    def load(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        """See `Task.load`."""
        load_adapter_weights(self.model.unet, weights)

    def architecture(self) -> dict[str, Any]:
        """See `Task.architecture`: also what is learned from, and how.

        A checkpoint of other rewards is another adapter's, and the lineage would not say so.
        """
        given = self.config.model_dump(mode="json")
        return {
            "base": self.lineage.base,
            "log": self.lineage.log,
            "real": given["real"] and {key: given["real"][key] for key in ("share", "weight")},
            **{key: value for key, value in given.items() if key not in FREE},
        }

    def write(self, folder: Path) -> None:
        """See `Task.write`."""
        peft = self.model.unet.peft_config["default"].to_dict()
        plain = json.loads(json.dumps(peft, default=_plain))
        self.lineage = write_adapter(folder, self.weights(self.model), plain, self.lineage)

    def draw(self, folder: Path, path: Path) -> None:
        """See `Task.draw`: adapters are drawn with by the round, not here."""


class _Lora:
    """`AdapterSettings` of a policy: plain LoRA whatever the objective."""

    method = "lora"

    def __init__(self, config: PolicyConfig) -> None:
        self.rank, self.alpha, self.targets = config.rank, config.alpha, list(config.targets)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def _margins(errors: Tensor, reference: Tensor) -> Tensor:
    model, known = errors.view(-1, 2), reference.view(-1, 2)
    return implicit_margins(model[:, 0], model[:, 1], known[:, 0], known[:, 1])


def train_policy(
    config: PolicyConfig,
    reporter: Reporter | None = None,
    *,
    reward: Reward | None = None,
    log: FeedbackLog | None = None,
) -> Path:
    """Train an adapter on a feedback log, going on from the newest checkpoint in `config.out`.

    Args:
        config: What to train on and how.
        reporter: Told of each step.
        reward: What scores images in place of the labels; that of `config.selector` when None.
        log: Over the configuration's.

    Returns:
        The adapter's folder: the best of the held-out checks.

    Raises:
        BadInput: Inputs that are missing or do not fit, or a log that nothing can be learned from.
        MedgenError: A loss that is no number, a full disk, or a signal to stop.
    """
    config.check_files()
    accelerator = make_accelerator(config)
    config.out.mkdir(parents=True, exist_ok=True)
    reporter = reporter or LineReporter()
    folder = config.generator or BUNDLED
    base = CompactGenerator(folder, steps=2, guidance_scale=1.0, micro_batch=1)
    unknown = set(config.modalities) - set(base.modalities)
    if unknown:
        raise BadInput(
            f"modalities: {', '.join(sorted(unknown))} cannot be drawn by {base.name}: use "
            + ", ".join(base.modalities)
        )
    if reward is None and config.selector is not None:
        from medgen.feedback.selector_reward import selector_reward

        reward = selector_reward(config.selector)
    opened = log or FeedbackLog.existing(config.log)
    preferences = read_preferences(
        opened,
        sources=config.sources,
        raters=config.raters,
        modalities=config.modalities or base.modalities,
        least_difference=config.least_difference,
        same_noise=config.same_noise,
        reward=reward,
    )
    notes = list(preferences.notes)
    if config.real is None:
        notes.append("no real images: fidelity is guarded by the log's own images alone")
    lineage = AdapterLineage(
        base=base_hash(folder),
        log=log_digest(opened),
        method=config.method,
        step=0,
        labels=preferences.labels,
        config=config.model_dump(mode="json"),
        notes=notes,
        medgen=metadata.version("medgen"),
    )
    earlier = _finished(config.out / "adapter", lineage)
    if earlier is not None:
        reporter.say(f"adapter {earlier.id} is finished already ({earlier.stopped}): {config.out}")
        return config.out / "adapter"
    with accelerator.main_process_first():
        base.autoencoder.to(accelerator.device)
        data = PolicyData(config, base, folder, preferences)
        base.autoencoder.to("cpu")
    _tell(reporter, accelerator, data, notes)
    task = PolicyTask(config, base, data, lineage)
    task.model.to(accelerator.device)
    run = PolicyRun(config, task, accelerator, reporter)
    with stop_signal() as stopped:
        run.go(stopped)
    return run.finish()


def _finished(folder: Path, lineage: AdapterLineage) -> AdapterLineage | None:
    """The adapter that this same training ended with, if it did."""
    try:
        found = read_lineage(folder)
    except BadInput:
        return None
    same = (found.base, found.log) == (lineage.base, lineage.log)
    differ = {k for k, v in lineage.config.items() if found.config.get(k) != v}
    return found if same and found.stopped and not differ - PLACES else None


def _tell(reporter: Reporter, accelerator: Accelerator, data: PolicyData, notes: list[str]) -> None:
    if not accelerator.is_main_process:
        return
    training, aside = data.training, data.aside
    reporter.say(
        f"{len(training.examples)} images of {len(training.prompts)} prompts, "
        f"{len(training.pairs)} pairs; held out: {len(aside.examples)} images, "
        f"{len(aside.pairs)} pairs"
    )
    for note in notes:
        reporter.say(f"note: {note}")

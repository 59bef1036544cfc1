"""The training loop, on accelerate: one processor core, one GPU or several, the same steps.

A killed run goes on from its last checkpoint as if unbroken: every draw is a function of the seed
and the step. The learning rate is constant after warm-up and falls to zero over the last part
(`decay_from`), so that a longer run can start from the checkpoint before the fall. Knows no
command line: it tells a `Reporter`.
"""

from __future__ import annotations

import copy
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from medgen.data.splits import is_validation
from medgen.errors import BadInput, MedgenError
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.text import TextTokenizer
from medgen.generator.training.batches import Batches, batch_loss
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.history import CheckpointHistory
from medgen.generator.training.latents import Latents, cached_latents
from medgen.generator.training.objective import Objective
from medgen.generator.training.progress import LineReporter, Progress, Reporter, TrainingLog
from medgen.generator.training.rows import read_rows
from medgen.generator.training.samples import draw_grid
from medgen.generator.training.session import make_accelerator, stop_signal
from medgen.generator.training.trainee import (
    Trainee,
    read_start,
    restore,
    save_generator,
    start_from,
)
from medgen.generator.training.vocabulary import training_tokenizer
from medgen.generator.unet import cost
from medgen.knowledge.cards import modality_cards


def train(config: TrainingConfig, reporter: Reporter | None = None) -> Path:
    """Train to `config.steps`, going on from the newest checkpoint in `config.out`.

    Returns:
        The generator's folder (its fp16 weights are those of the running average).

    Raises:
        BadInput: Inputs that are missing or do not fit, or a checkpoint of another architecture.
        MedgenError: A loss that is no number, a full disk, or a signal to stop; the last
            checkpoint is kept, and the same command goes on from it.
    """
    config.check_files()
    accelerator = make_accelerator(config)
    run = TrainingRun(config, accelerator, reporter or LineReporter())
    with stop_signal() as stopped:
        run.go(stopped)
    if config.tracker != "none":
        accelerator.end_training()
    return run.generator_folder


class TrainingRun:
    """One run: its model, its batches, its checkpoints."""

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, reporter: Reporter
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.main = accelerator.is_main_process
        self.reporter = reporter
        self.generator_folder = config.out / "generator"
        config.out.mkdir(parents=True, exist_ok=True)
        everything = read_rows(config.table, config.joined)
        rows = [row for row in everything if not is_validation(row["group"])]
        held_out = [row for row in everything if is_validation(row["group"])]
        if not rows:
            raise BadInput(f"{config.table}: every training row is in the validation fold")
        start = read_start(config.init_from) if config.init_from else None
        present = {row["modal"] for row in rows}
        known = start.modalities if start else ()
        modalities = (*known, *sorted(present - set(known)))
        kept = start.tokenizer if start else None
        path = config.tokenizer or kept or config.out / "tokenizer.json"
        with accelerator.main_process_first():
            self.tokenizer: TextTokenizer = training_tokenizer(path, config, rows)
            latents = cached_latents(
                config.cache or config.out,
                config.autoencoder,
                config.images,
                [int(row["index"]) for row in rows],
                [int(row["index"]) for row in held_out],
                config.augmented_copies,
            )
        if start and start.description:
            # Trained weights expect the standardisation they were trained with.
            mean, std = (
                torch.tensor(start.description[name]).view(-1, 1, 1)
                for name in ("latents_mean", "latents_std")
            )
            latents = latents._replace(mean=mean, std=std)
        self.autoencoder = CompactAutoencoder.from_pretrained(
            config.autoencoder, use_safetensors=True
        ).eval()
        self.description = _description(latents)
        torch.manual_seed(config.seed)
        vocabulary = self.tokenizer.tokenizer.get_vocab_size()
        model = Trainee(config, modalities, vocabulary, latents.training.shape[-1])
        self._tell(model)
        if start:
            new = start_from(model, start)
            added = f"; new parts: {', '.join(new)}" if new else ""
            self._say(f"starts from {start.source}{added}")
        self.average = copy.deepcopy(model).eval().to(accelerator.device)
        self.plain_model = model
        self.batches = Batches(config, rows, held_out, latents, self.tokenizer, model.conditions)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.history = CheckpointHistory(config.out, config.keep_last)
        self.window: list[float] = []
        self.best: float | None = None
        self.step = self._resume()
        self.log = TrainingLog(config.out / "log.csv", self.step) if self.main else None

    def go(self, stopped: threading.Event) -> None:
        """Train until the last step or a signal."""
        config = self.config
        if self.step >= config.steps:
            self._say(f"already at step {self.step} of {config.steps}: raise `steps` to go on")
            if self.main and not self.generator_folder.exists():
                self._write_generator()
        self.model.train()
        last, seen, speed = time.monotonic(), 0, 0.0
        while self.step < config.steps:
            rate = self._set_rate()
            loss, stopping = self._shared(self._update(), stopped.is_set())
            self.window.append(loss)
            seen += config.batch
            elapsed = time.monotonic() - last
            if elapsed > 1 or not speed:
                speed = seen / max(elapsed, 1e-9)
            due = self.step % config.save_every == 0 or self.step == config.steps
            logged = due or self.step % config.log_every == 0
            progress = Progress(
                step=self.step,
                steps=config.steps,
                loss=sum(self.window) / len(self.window),
                rate=rate,
                images_per_second=speed,
                seconds_left=(config.steps - self.step) * config.batch / speed,
                logged=logged,
                held_out=self._held_out_loss() if due and self.main else None,
            )
            if logged:
                self.window = []
            if due or stopping:
                self._save(progress.held_out)
            if self.main and self._samples_due():
                self._draw_samples(written=due)
            self._record(progress)
            if logged:
                last, seen = time.monotonic(), 0
            if stopping and self.step < config.steps:
                raise MedgenError(
                    f"stopped at step {self.step} of {config.steps}; its checkpoint is written: "
                    "run the same command to go on"
                )

    def _shared(self, loss: Tensor, stop: bool) -> tuple[float, bool]:
        """The mean loss of all processes, and whether any of them was told to stop."""
        told = self.accelerator.reduce(torch.stack([loss, loss.new_tensor(float(stop))]), "mean")
        return float(told[0]), bool(told[1] > 0)

    def _update(self) -> Tensor:
        """One optimizer step; the mean loss of this process's part of the batch."""
        config, accelerator = self.config, self.accelerator
        batch = self.batches.training(self.step)
        # The text encoder's dropout, the only draw that is not in the batch.
        torch.manual_seed(hash((config.seed, self.step)) % 2**63 + accelerator.process_index)
        parts = config.accumulate * accelerator.num_processes
        total = torch.zeros((), device=accelerator.device)
        for turn in range(config.accumulate):
            index = accelerator.process_index * config.accumulate + turn
            part = batch.part(index, parts).to(accelerator.device)
            with accelerator.accumulate(self.model):
                loss = batch_loss(self.model(*part[:6]), part)
                total += loss.detach() / config.accumulate
                if not torch.isfinite(loss):
                    raise MedgenError(
                        f"the loss is {loss.item()} at step {self.step}: lower lr, or precision "
                        f"from {config.precision} to a wider one; {self._kept()}"
                    )
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.model.parameters(), config.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.plain_model.parameters()), 1 - decay
            )
        return total

    def _kept(self) -> str:
        paths = self.history.paths()
        return f"{paths[-1]} is kept" if paths else "no checkpoint was written yet"

    def _set_rate(self) -> float:
        config = self.config
        begin = config.decay_from * config.steps
        fall = max(0.0, (self.step - begin) / max(1.0, config.steps - begin))
        rate = config.lr * min(1.0, (self.step + 1) / config.warmup) * (1 - fall)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @torch.inference_mode()
    def _held_out_loss(self) -> float | None:
        total, count = 0.0, 0
        for batch in self.batches.held_out():
            moved = batch.to(self.accelerator.device)
            with self.accelerator.autocast():
                prediction = self.average(*moved[:6])
            total += float(batch_loss(prediction, moved)) * len(batch.times)
            count += len(batch.times)
        return total / count if count else None

    def _save(self, held_out: float | None) -> None:
        if self.main:
            best = held_out is not None and (self.best is None or held_out < self.best)
            self.best = held_out if best else self.best
            scaler = self.accelerator.scaler
            state = {
                "model": self.plain_model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "step": self.step,
                "window": self.window,
                "best": self.best,
                "architecture": self.plain_model.architecture(),
            }
            self.history.save(state, best=best)
            self._write_generator()
            if best:
                target = self.config.out / "generator_best"
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(self.generator_folder, target)
        self.accelerator.wait_for_everyone()

    def _write_generator(self) -> None:
        save_generator(
            self.generator_folder,
            self.average,
            self.autoencoder,
            self.tokenizer,
            Objective(self.config.objective).sampler(),
            self.description,
        )

    def _resume(self) -> int:
        found = self.history.newest()
        if found is None:
            return 0
        path, state = found
        restore(path, state, self.plain_model, self.average, self.optimizer)
        if state.get("scaler") and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.window, self.best = list(state.get("window", [])), state.get("best")
        self._say(f"goes on from {path}, step {state['step']}")
        return int(state["step"])

    def _samples_due(self) -> bool:
        samples = self.config.samples
        return samples is not None and (
            self.step % samples.every == 0 or self.step == self.config.steps
        )

    def _draw_samples(self, written: bool) -> None:
        assert self.config.samples is not None
        if not written:
            self._write_generator()
        path = self.config.out / "samples" / f"step-{self.step:07d}.png"
        draw_grid(self.generator_folder, self.config.samples, path)

    def _record(self, progress: Progress) -> None:
        if not self.main:
            return
        if progress.logged and self.log is not None:
            self.log.add(progress)
            values = {
                "loss": progress.loss,
                "learning_rate": progress.rate,
                "images_per_second": progress.images_per_second,
            }
            if progress.held_out is not None:
                values["held_out_loss"] = progress.held_out
            self.accelerator.log(values, step=progress.step)
        self.reporter.step(progress)

    def _tell(self, model: Trainee) -> None:
        for name in ("text_encoder", "conditions"):
            count = sum(p.numel() for p in getattr(model, name).parameters())
            self._say(f"{name}: {count / 1e6:.2f} M parameters")
        figures = cost(model.unet)
        for part, count in figures["parameters"].items():
            name = "unet" if part == "total" else f"unet, of it {part}"
            flops = figures["flops"][part] / 1e9
            self._say(
                f"{name}: {count / 1e6:.2f} M parameters, {flops:.3f} GFLOPs a picture and step"
            )

    def _say(self, text: str) -> None:
        if self.main:
            self.reporter.say(text)


def _description(latents: Latents) -> dict[str, Any]:
    return {
        "size": 16 * latents.training.shape[-1],
        "latents_mean": latents.mean.flatten().tolist(),
        "latents_std": latents.std.flatten().tolist(),
        "color_modalities": sorted(c.name for c in modality_cards().values() if c.color),
    }

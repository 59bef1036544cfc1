"""The training loop, on accelerate: one processor core, one GPU or several, the same steps.

A killed run goes on from its last checkpoint as if unbroken: every draw is a function of the seed
and the step. The learning rate is constant after warm-up and falls to zero over the last part
(`decay_from`), so that a longer run can start from the checkpoint before the fall. Knows no
command line: it tells a `Reporter`.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from medgen.errors import BadInput, MedgenError
from medgen.generator.checkpoints import writing_folder
from medgen.generator.training.config import (
    FinetuningConfig,
    LoopConfig,
    RunConfig,
    TrainingConfig,
)
from medgen.generator.training.history import CheckpointHistory
from medgen.generator.training.progress import LineReporter, Progress, Reporter, TrainingLog
from medgen.generator.training.session import make_accelerator, stop_signal
from medgen.generator.training.task import Task


def train(config: RunConfig, reporter: Reporter | None = None) -> Path:
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
    config.out.mkdir(parents=True, exist_ok=True)
    reporter = reporter or LineReporter()
    say = reporter.say if accelerator.is_main_process else _silent
    run = TrainingRun(config, _task(config, accelerator, say), accelerator, reporter)
    with stop_signal() as stopped:
        run.go(stopped)
    if config.tracker != "none":
        accelerator.end_training()
    return run.folder


def _task(config: RunConfig, accelerator: Accelerator, say: Callable[[str], None]) -> Task:
    if isinstance(config, FinetuningConfig):
        from medgen.generator.training.finetuning import Finetuning

        return Finetuning(config, accelerator, say)
    assert isinstance(config, TrainingConfig)
    from medgen.generator.training.compact import CompactTraining

    return CompactTraining(config, accelerator, say)


def _silent(_line: str) -> None:
    """What processes other than the first say."""


class TrainingRun:
    """One run of a task: its steps, its checkpoints, its log."""

    def __init__(
        self, config: LoopConfig, task: Task, accelerator: Accelerator, reporter: Reporter
    ) -> None:
        self.config = config
        self.task = task
        self.accelerator = accelerator
        self.main = accelerator.is_main_process
        self.reporter = reporter
        self.folder = config.out / "generator"
        self.best_folder = config.out / "generator_best"
        self.trained = {n: p for n, p in task.model.named_parameters() if p.requires_grad}
        if task.average is not None:
            task.average.to(accelerator.device)
        optimizer = torch.optim.AdamW(
            self.trained.values(), lr=config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(task.model, optimizer)
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
            if self.main and not self.folder.exists():
                self.task.write(self.folder)
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
            if due and (why := self.ended()):
                self._say(f"step {self.step}: {why}")
                return

    def ended(self) -> str:
        """Why training ends here before its last step, asked after each save; "" to go on.

        All processes must answer alike.
        """
        return ""

    def _shared(self, loss: Tensor, stop: bool) -> tuple[float, bool]:
        """The mean loss of all processes, and whether any of them was told to stop."""
        told = self.accelerator.reduce(torch.stack([loss, loss.new_tensor(float(stop))]), "mean")
        return float(told[0]), bool(told[1] > 0)

    def _update(self) -> Tensor:
        """One optimizer step; the mean loss of this process's part of the batch."""
        config, accelerator = self.config, self.accelerator
        batch = self.task.batch(self.step)
        # Dropout inside the model, the only draw that is not in the batch.
        torch.manual_seed(hash((config.seed, self.step)) % 2**63 + accelerator.process_index)
        parts = config.accumulate * accelerator.num_processes
        total = torch.zeros((), device=accelerator.device)
        for turn in range(config.accumulate):
            index = accelerator.process_index * config.accumulate + turn
            part = batch.part(index, parts).to(accelerator.device)
            with accelerator.accumulate(self.model):
                loss = self.task.loss(self.model, part)
                total += loss.detach() / config.accumulate
                if not torch.isfinite(loss):
                    raise MedgenError(
                        f"the loss is {loss.item()} at step {self.step}: lower lr, or precision "
                        f"from {config.precision} to a wider one; {self._kept()}"
                    )
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.trained.values(), config.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.task.average is not None:
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            average = dict(self.task.average.named_parameters())
            with torch.no_grad():
                torch._foreach_lerp_(
                    [average[name] for name in self.trained],
                    [value.detach() for value in self.trained.values()],
                    1 - decay,
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
        measured = self.task.model if self.task.average is None else self.task.average
        measured.eval()
        for batch in self.task.held_out():
            with self.accelerator.autocast():
                loss = self.task.loss(measured, batch.to(self.accelerator.device))
            total += float(loss) * batch.size
            count += batch.size
        self.model.train()
        return total / count if count else None

    def _save(self, held_out: float | None) -> None:
        if self.main:
            best = held_out is not None and (self.best is None or held_out < self.best)
            self.best = held_out if best else self.best
            average, scaler = self.task.average, self.accelerator.scaler
            state = {
                "model": self.task.weights(self.task.model),
                "average": self.task.weights(average) if average is not None else {},
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "step": self.step,
                "window": self.window,
                "best": self.best,
                "architecture": self.task.architecture(),
            }
            self.history.save(state, best=best)
            self.task.write(self.folder)
            if best:
                with writing_folder(self.best_folder) as new:
                    shutil.copytree(self.folder, new, dirs_exist_ok=True)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        found = self.history.newest()
        if found is None:
            return 0
        path, state = found
        _restore(path, state, self.task, self.optimizer)
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
        if not written:
            self.task.write(self.folder)
        self.task.draw(self.folder, self.config.out / "samples" / f"step-{self.step:07d}.png")
        self.model.train()

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

    def _say(self, text: str) -> None:
        if self.main:
            self.reporter.say(text)


def _restore(
    path: Path, state: dict[str, Any], task: Task, optimizer: torch.optim.Optimizer
) -> None:
    """Put a run's own checkpoint back in place.

    Raises:
        BadInput: It belongs to another architecture; the first difference is named.
    """
    asked = task.architecture()
    for key, value, wanted in _differences(state.get("architecture") or asked, asked):
        raise BadInput(
            f"{path} was trained with {key} = {value}, the configuration asks {wanted}: "
            "choose another `out` (and `init_from` to start from its weights)"
        )
    try:
        task.load(task.model, state["model"])
        if task.average is not None:
            task.load(task.average, state["average"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        lines = str(error).splitlines()
        reason = lines[1 if len(lines) > 1 else 0].strip()[:120]
        raise BadInput(
            f"{path} has another architecture than the configuration ({reason}): "
            "choose another `out`"
        ) from error


def _differences(
    saved: dict[str, Any], asked: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    # Keys of one side alone come from another release; the weights then decide.
    for key in sorted(saved.keys() & asked.keys()):
        before, now = saved[key], asked[key]
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{prefix}{key}.")
        elif before != now:
            yield f"{prefix}{key}", before, now

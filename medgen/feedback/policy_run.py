"""The loop of policy training: checks on held-out prompts and images, early stop, adapters kept.

Knows steps, figures and folders; what is measured and trained is the task's.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from pydantic import ValidationError

from medgen.data.images import write_atomic
from medgen.feedback.policy_config import PolicyConfig
from medgen.generator.adapter import CONFIG, LINEAGE, WEIGHTS, read_lineage
from medgen.generator.checkpoints import writing_folder
from medgen.generator.training.loop import TrainingRun
from medgen.generator.training.progress import Reporter
from medgen.records import Record

if TYPE_CHECKING:
    from medgen.feedback.policy import PolicyTask

CHECKS = "checks.csv"
ADAPTER, LAST, STEPS = "adapter", "last", "steps"


class PolicyCheck(Record):
    """Held-out figures after a step; null where nothing was held out.

    `preference_loss` is DPO's on held-out pairs (ln 2 for the base), `preference_accuracy` the
    share of them that the adapter tells apart better than the base (0.5 for the base),
    `preferred_loss` the denoising loss of the better images alone, which reward-weighted training
    lowers, `steering_left` the share of what steering moves that the adapter does not foresee yet
    (1 for the base), `fidelity_loss` the denoising loss on held-out real images (or the log's own).
    """

    step: int
    preference_loss: float | None = None
    preference_accuracy: float | None = None
    preferred_loss: float | None = None
    steering_left: float | None = None
    fidelity_loss: float | None = None


class PolicyRun(TrainingRun):
    """One policy training: `adapter/` is the best by the held-out checks, `steps/` has each."""

    def __init__(
        self, config: PolicyConfig, task: PolicyTask, accelerator: Accelerator, reporter: Reporter
    ) -> None:
        super().__init__(config, task, accelerator, reporter)
        self.policy, self.choices = task, config
        self.folder = config.out / LAST
        self.best_folder = config.out / ADAPTER
        self.stopped = ""
        self.checks = [one for one in read_checks(config.out) if one.step <= self.step]

    def go(self, stopped: threading.Event) -> None:
        """Train until the last step, a reason to stop, or a signal."""
        if self.main and not self.checks:
            self._check()
        super().go(stopped)

    def finish(self) -> Path:
        """Write why training ended into the best adapter; its folder."""
        if self.main:
            if not (self.best_folder / LINEAGE).is_file():
                with writing_folder(self.best_folder) as new:
                    shutil.copytree(self.folder, new, dirs_exist_ok=True)
            lineage = read_lineage(self.best_folder)
            ended = lineage.model_copy(
                update={"stopped": self.stopped or f"all {self.step} steps done"}
            )
            write_atomic(self.best_folder / LINEAGE, ended.model_dump_json(indent=1) + "\n")
        self.accelerator.wait_for_everyone()
        return self.best_folder

    def ended(self) -> str:
        """Why training stops early: fidelity is lost, or the held-out figure no longer falls."""
        reason = self._why_stop() if self.main else ""
        told = torch.tensor(float(bool(reason)), device=self.accelerator.device)
        if float(self.accelerator.reduce(told, "sum")) and self.step < self.choices.steps:
            self.stopped = reason
            return reason or "stopped by the first process"
        return ""

    def _why_stop(self) -> str:
        if not self._faithful(self.checks[-1]):
            limit = self.choices.fidelity_tolerance
            return f"stopped: the fidelity loss rose by more than {limit:.0%}"
        figures = [self._figure(one) for one in self.checks]
        best = min(range(len(figures)), key=figures.__getitem__)
        if math.isfinite(figures[best]) and len(figures) - 1 - best >= self.choices.patience:
            return f"stopped: no better held-out figure since step {self.checks[best].step}"
        return ""

    def _check(self) -> PolicyCheck:
        found = self.policy.check(self.step, self.accelerator.device)
        self.checks = [one for one in self.checks if one.step < found.step] + [found]
        write_checks(self.choices.out, self.checks)
        told = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in _figures(found).items()]
        self._say(f"check at step {self.step}: {', '.join(told) or 'nothing is held out'}")
        return found

    def _held_out_loss(self) -> float | None:
        found = self._check()
        said = {"step": self.step, "metrics": _figures(found)}
        self.policy.lineage = self.policy.lineage.model_copy(update=said)
        return self._figure(found)

    def _figure(self, check: PolicyCheck) -> float:
        """What the best is chosen by: lower is better, infinite where fidelity is lost."""
        if not self._faithful(check):
            return math.inf
        # Each objective by its own figure: DPO's loss grows with any adapter that moves far.
        figure = {
            "dpo": check.preference_loss,
            "steered": check.steering_left,
            "reward_weighted": check.preferred_loss,
        }[self.choices.method]
        if figure is not None:
            return figure
        # With no prompt to spare, the longest training that keeps fidelity.
        return -float(check.step)

    def _faithful(self, check: PolicyCheck) -> bool:
        first = self.checks[0].fidelity_loss
        if first is None or check.fidelity_loss is None:
            return True
        return check.fidelity_loss <= first * (1 + self.choices.fidelity_tolerance)

    def _save(self, held_out: float | None) -> None:
        super()._save(held_out)
        if self.main:
            kept = self.choices.out / STEPS / f"{self.step:06d}"
            with writing_folder(kept) as new:
                for name in (WEIGHTS, CONFIG, LINEAGE):
                    shutil.copy2(self.folder / name, new / name)


def _figures(check: PolicyCheck) -> dict[str, float]:
    """What was measured, by name."""
    return {k: float(v) for k, v in check.model_dump(exclude={"step"}).items() if v is not None}


def read_checks(out: Path) -> list[PolicyCheck]:
    """The checks of a training's folder, in order; none where there are none."""
    try:
        with (out / CHECKS).open(newline="", encoding="utf-8") as stream:
            return [
                PolicyCheck.model_validate({k: v for k, v in row.items() if v})
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValidationError):
        return []


def write_checks(out: Path, checks: list[PolicyCheck]) -> Path:
    """Write all checks, whole or not at all."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(PolicyCheck.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.model_dump() for one in checks)
    return write_atomic(out / CHECKS, buffer.getvalue())

"""What a run shares with the machine: processes, precision, trackers and signals to stop."""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator

from medgen.errors import BadInput
from medgen.generator.training.config import LoopConfig


def make_accelerator(config: LoopConfig) -> Accelerator:
    """The accelerator of a run, with its precision and its tracker.

    Raises:
        BadInput: A tracker that is not installed, a precision that this machine lacks, or a batch
            that does not split evenly.
    """
    log_with = None
    if config.tracker != "none":
        if importlib.util.find_spec(config.tracker) is None:
            raise BadInput(
                f"tracker: {config.tracker} is not installed: pip install {config.tracker}"
            )
        log_with = config.tracker
    try:
        accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.accumulate,
            log_with=log_with,
            project_dir=config.out,
        )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"precision: {config.precision} cannot be used here: {reason}") from error
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise BadInput("precision: fp16 needs a GPU: use bf16 or no")
    parts = config.accumulate * accelerator.num_processes
    if config.batch % parts:
        raise BadInput(f"batch: {config.batch} is no multiple of {parts} (accumulate x processes)")
    if log_with:
        flat = {key: str(value) for key, value in config.model_dump(mode="json").items()}
        accelerator.init_trackers("medgen", config=flat)
    return accelerator


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; a second one acts as usual."""
    stopped = threading.Event()
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)

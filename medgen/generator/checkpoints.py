"""Training states on disk: whole or not at all, and a clear word when they cannot be written.

Written and read by our own training only (`torch.load` with `weights_only`); users' weights travel
as safetensors.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from torch import nn

from medgen.errors import BadInput, MedgenError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ALMOST_NOTHING = 1 << 20


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into one line.

    Raises:
        MedgenError: The disk is full, or the file cannot be written for another reason.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(path.parent).free
        reason = str(error).splitlines()[0]
        if getattr(error, "errno", None) in FULL or free < ALMOST_NOTHING:
            reason = f"the disk is full ({free >> 20} MB free): make room and run again"
        raise MedgenError(f"cannot write {path}: {reason}; what was written before is kept") from (
            error
        )


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when it is whole.

    Raises:
        MedgenError: It cannot be written; the folder that was there is kept.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    with writing(folder):
        if old.exists() and not folder.exists():  # killed between the two renames below
            old.rename(folder)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)


class _Remembering(io.RawIOBase):
    """Keeps the reason why a write failed, which torch's writer hides behind its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.failure = error
            raise


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state under a temporary name, then rename.

    Raises:
        MedgenError: The disk is full, or the file cannot be written for another reason.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                stream = _Remembering(file)
                try:
                    torch.save(state, cast(IO[bytes], stream))
                except RuntimeError as error:
                    raise stream.failure or error from error
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Read a state onto the CPU.

    Raises:
        BadInput: The file is truncated or no checkpoint.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(f"cannot read the checkpoint {path}: {reason[:120]}") from error
    if not isinstance(state, dict) or not {"model", "average", "step"} <= state.keys():
        raise BadInput(f"{path} is no checkpoint of medgen's training")
    return state


def save_checkpoint(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write a model, its running average and its optimizer after `step` steps."""
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    write_state(path, state)


def load_checkpoint(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Restore what `save_checkpoint` wrote; the steps done, 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    state = read_state(path)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"resumed at step {state['step']}", flush=True)
    return int(state["step"])

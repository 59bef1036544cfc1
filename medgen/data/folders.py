"""New folders on disk: whole or not there at all, and a clear word when they cannot be written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medgen.errors import BadInput, MedgenError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill under a hidden name; it gets its own name when everything is in it.

    What an interrupted attempt left behind is removed, by itself where it can still act, else by
    the next one.

    Args:
        folder: The folder to make; its parents are made where missing.

    Raises:
        BadInput: There is something of that name already, or it lies in no folder.
        MedgenError: The disk is full or it cannot be written; nothing is left then.
    """
    folder = Path(folder).expanduser().resolve()
    refuse_existing(folder)
    new = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        new.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in FULL:
            reason = "the disk is full: make room"
        raise MedgenError(f"cannot write {folder} ({reason}); nothing was left there") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise BadInput when there is something at a path that is to be written, or no folder above.

    Raises:
        BadInput: As said.
    """
    if path.exists():
        raise BadInput(f"{path} is there already: choose another name with --out")
    nearest = next(parent for parent in path.parents if parent.exists())
    if not nearest.is_dir():
        raise BadInput(f"{nearest} is no folder: choose another name with --out")

"""The checkpoints of one run: the last few and the best, found again after a kill.

Knows files and the order of steps; the loop knows what a state holds.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from medgen.errors import BadInput
from medgen.generator.checkpoints import read_state, write_state, writing

BEST = "best.pt"
EARLIER_LAYOUT = "last.pt"


class CheckpointHistory:
    """Files `checkpoint-STEP.pt` of a folder, and `best.pt`."""

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def paths(self) -> list[Path]:
        """Checkpoints from old to new (the one of the earlier layout first)."""
        earlier = self.folder / EARLIER_LAYOUT
        numbered = sorted(self.folder.glob("checkpoint-*.pt"))
        return [earlier, *numbered] if earlier.exists() else numbered

    def save(self, state: dict[str, Any], *, best: bool) -> Path:
        """Write a state under its `step`, then drop all but the last few.

        Raises:
            MedgenError: It cannot be written; older ones are kept.
        """
        path = self.folder / f"checkpoint-{state['step']:07d}.pt"
        write_state(path, state)
        if best:
            temporary = self.folder / f".{BEST}.tmp"
            with writing(self.folder / BEST):
                temporary.unlink(missing_ok=True)
                try:
                    os.link(path, temporary)
                except OSError:  # a file system without hard links
                    shutil.copy2(path, temporary)
                temporary.replace(self.folder / BEST)
        for old in sorted(self.folder.glob("checkpoint-*.pt"))[: -self.keep_last]:
            old.unlink()
        return path

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest readable checkpoint; null where there is none.

        Raises:
            BadInput: There are checkpoints, and none can be read.
        """
        failed: BadInput | None = None
        for path in reversed(self.paths()):
            try:
                return path, read_state(path)
            except BadInput as error:
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
                failed = error
        if failed is not None:
            raise BadInput(f"{failed}: no other is left in {self.folder}; remove it to start anew")
        return None

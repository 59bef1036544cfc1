"""Runs and drawings as the Python API hands them out: the records, with their pictures at hand.

Reads a run's folder and writes nothing.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from medgen.data.images import load_image
from medgen.errors import BadInput
from medgen.graphs.run_folder import RUN, RunFolder
from medgen.graphs.runs import open_run
from medgen.records import Drawing, Request, Run, TraceEvent


class Pictured:
    """Has images on disk, and opens them when asked."""

    images: list[str]

    @cached_property
    def image(self) -> Image.Image:
        """The first image, RGB."""
        return load_image(self.images[0])

    @cached_property
    def pictures(self) -> list[Image.Image]:
        """All images asked for, RGB."""
        return [load_image(path) for path in self.images]


class RunResult(Pictured, Run):
    """A `Run` with its request, pictures and events at hand; a notebook shows it as a page."""

    @cached_property
    def control_image(self) -> Image.Image:
        """The first image's control, RGB."""
        return load_image(self.control.image)

    @cached_property
    def events(self) -> list[TraceEvent]:
        """The trace, one event a node."""
        lines = Path(self.trace).read_text(encoding="utf-8").splitlines()
        return [TraceEvent.model_validate_json(line) for line in lines]

    @cached_property
    def request(self) -> Request:
        """What was asked."""
        return RunFolder.open(self.folder).request

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return Path(self.trace).parent

    def _repr_html_(self) -> str:
        from medgen.graphs.notebook import run_html

        return run_html(self)


class DrawingResult(Pictured, Drawing):
    """A `Drawing` with its pictures at hand; a notebook shows them."""

    def _repr_html_(self) -> str:
        from medgen.graphs.notebook import drawing_html

        return drawing_html(self)


def load(run: str | Path) -> RunResult:
    """A finished run, read from its folder; its paths lead to where the folder is now.

    Args:
        run: The run's folder, its id, or the beginning of its id.

    Raises:
        BadInput: There is no such run, it is not finished, or it cannot be read.
    """
    folder = open_run(str(run))
    try:
        record = Run.model_validate_json((folder.path / RUN).read_bytes())
    except FileNotFoundError as error:
        raise BadInput(
            f"run {folder.run_id} is not finished: go on with it by Agent().run(resume=...)"
        ) from error
    except (OSError, ValueError) as error:
        raise BadInput(f"run {folder.run_id} cannot be read ({RUN} is damaged)") from error
    before = str(Path(record.trace).parent)
    return RunResult.model_validate(rebased(record.model_dump(), before, str(folder.path)))


def rebased(value: Any, before: str, after: str) -> Any:
    """Plain data whose paths under the folder `before` lead into the folder `after` instead."""
    if isinstance(value, dict):
        return {key: rebased(one, before, after) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rebased(one, before, after) for one in value]
    if isinstance(value, str) and value.startswith(f"{before}/"):
        return f"{after}/{value.removeprefix(f'{before}/')}"
    return value

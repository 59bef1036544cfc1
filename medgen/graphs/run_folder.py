"""A run on disk: one folder with the request, checkpoints, candidates, images, report and trace.

Everything but the checkpoints is written whole or not at all, under names that depend on the run
alone, so that a node which runs again writes the same files. Knows names and files; what they say
comes from the graph.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.graphs.setup import current_setup
from medgen.records import Lineage, Request, Run, Setup, TraceEvent
from medgen.settings import settings

REQUEST = "request.json"
CHECKPOINTS = "checkpoints.sqlite"
CANDIDATES = "candidates"
REPORT = "report.md"
TRACE_LINES = "trace.jsonl"
TRACE_PAGE = "trace.html"
RUN = "run.json"
OWN_FILES = (REQUEST, CHECKPOINTS, CANDIDATES, REPORT, TRACE_LINES, TRACE_PAGE, RUN)


def request_digest(request: Request) -> str:
    """Eight hex digits that stand for what was asked: the same for the same request and seed."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:8]


def new_run_id(request: Request) -> str:
    """An id that sorts by time (UTC) and ends in the request's digest."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{request_digest(request)}"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `made` are the folders that were created for it, outermost first.

    `setup` is what was known of it at the start: settings and versions; `lineage` is for forks.
    """

    path: Path
    run_id: str
    request: Request
    made: tuple[Path, ...] = ()
    setup: Setup = field(default_factory=Setup)
    lineage: Lineage | None = None

    @classmethod
    def create(
        cls,
        request: Request,
        out: str | Path | None = None,
        *,
        setup: Setup | None = None,
        lineage: Lineage | None = None,
    ) -> RunFolder:
        """Make the folder of a new run.

        Args:
            request: What was asked.
            out: The folder to use; a new one under `MEDGEN_RUNS` when None.
            setup: Settings and versions; this process's when None.
            lineage: Where a forked run comes from.

        Raises:
            BadInput: It cannot be written, or holds another run or files that this one would
                replace; then nothing was written.
        """
        run_id = new_run_id(request)
        setup = setup or current_setup(settings())
        made: list[Path] = []
        try:
            path = (settings().runs / run_id if out is None else Path(out)).expanduser().resolve()
            if path.is_dir():
                _refuse_occupied(path, request)
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                made.append(folder)
            with (path / REQUEST).open("x", encoding="utf-8") as stream:
                content = {
                    "run_id": run_id,
                    "request": request.model_dump(mode="json"),
                    "setup": setup.model_dump(mode="json", include={"settings", "versions"}),
                    "lineage": lineage and lineage.model_dump(mode="json"),
                }
                json.dump(content, stream)
        except FileExistsError as error:
            if error.filename and Path(error.filename).name == REQUEST:
                raise BadInput(
                    f"{path} holds another run: choose another folder with --out"
                ) from error
            raise BadInput(f"{out} is no folder: choose another with --out") from error
        except (OSError, ValueError, RuntimeError) as error:
            for folder in reversed(made):
                folder.rmdir()
            reason = getattr(error, "strerror", None) or error
            where = settings().runs if out is None else out
            raise BadInput(f"cannot write to {where} ({reason}): choose a folder with --out") from (
                error
            )
        return cls(path, run_id, request, tuple(made), setup, lineage)

    @classmethod
    def open(cls, run: str | Path, out: str | Path | None = None) -> RunFolder:
        """Find the folder of an earlier run.

        Args:
            run: A run id, or the run's folder.
            out: The folder the run was given, when it is not under `MEDGEN_RUNS`.

        Raises:
            BadInput: There is no such run.
        """
        places = [Path(run), settings().runs / run, *([Path(out)] if out is not None else [])]
        try:
            found = [place for place in places if (place / REQUEST).is_file()]
            for place in found:
                content = json.loads((place / REQUEST).read_text(encoding="utf-8"))
                run_id, request = content["run_id"], Request.model_validate(content["request"])
                lineage = content.get("lineage")
                folder = cls(
                    place.resolve(),
                    run_id,
                    request,
                    setup=Setup.model_validate(content.get("setup") or {}),
                    lineage=Lineage.model_validate(lineage) if lineage else None,
                )
                if place is places[0] or folder.run_id == str(run):
                    return folder
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise BadInput(f"run {run} cannot be read ({REQUEST} is damaged): start it anew") from (
                error
            )
        raise BadInput(
            f"no run {run} in {settings().runs}: give the id or folder that the run printed"
        )

    def discard(self) -> None:
        """Remove what was written for a run that turned out to be bad input."""
        for name in (*OWN_FILES, f"{CHECKPOINTS}-wal", f"{CHECKPOINTS}-shm"):
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        for folder in reversed(self.made):
            if not any(folder.iterdir()):
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        """LangGraph's checkpoints, SQLite."""
        return self.path / CHECKPOINTS

    def write_trace(self, events: Sequence[TraceEvent], page: str) -> Path:
        """Write the trace as lines of JSON and as a page; returns the path of the lines."""
        lines = "".join(event.model_dump_json() + "\n" for event in events)
        write_atomic(self.path / TRACE_PAGE, page)
        return write_atomic(self.path / TRACE_LINES, lines)

    def write_run(self, run: Run) -> None:
        """Write the run's record."""
        write_atomic(self.path / RUN, run.model_dump_json(indent=2) + "\n")


def image_path(folder: Path, index: int, images: int) -> Path:
    """Where an image that was asked for lies: `image.png`, or `image_0.png` and so on."""
    return folder / ("image.png" if images == 1 else f"image_{index}.png")


def _refuse_occupied(path: Path, request: Request) -> None:
    images = [image_path(path, index, request.images) for index in range(request.images)]
    for target in (*(path / name for name in OWN_FILES), *images):
        if target.exists():
            raise BadInput(
                f"{path} holds another run ({target.name}): choose another folder with --out, "
                "or go on with that run with --resume"
            )

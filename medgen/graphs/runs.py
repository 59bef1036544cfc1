"""Reading the runs on disk: which there are, which one is meant, and all that one of them holds.

The list is made of the small JSON files of each folder; only `load_run` opens the checkpoints.
Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from medgen.agents.state import Choice, Trial
from medgen.errors import BadInput
from medgen.graphs.run_folder import REQUEST, RUN, TRACE_LINES, RunFolder
from medgen.records import (
    Candidate,
    Fact,
    Plan,
    Record,
    Request,
    Run,
    RunSummary,
    Setup,
    TraceEvent,
)
from medgen.settings import settings


class Trace(Record):
    """All that a run holds so far, as records; of an unfinished run what there is yet.

    `generator` is the name of what drew, empty before that is known. Image paths lead
    into the folder where the run lies now, wherever it was made.
    """

    summary: RunSummary
    request: Request
    plan: Plan | None = None
    facts: list[Fact]
    generator: str
    setup: Setup
    candidates: list[Candidate]
    choices: list[Choice]
    trials: list[Trial]
    events: list[TraceEvent]


def list_runs(
    folder: str | Path | None = None,
    *,
    search: str = "",
    modality: str | None = None,
    accepted: bool | None = None,
) -> list[RunSummary]:
    """The runs of a folder, newest first.

    Args:
        folder: Holds one folder a run; `MEDGEN_RUNS` when None. May be missing: then no runs.
        search: Words that must all occur in the prompt or the run id, in any case.
        modality: Only runs of this modality, in any case.
        accepted: Only accepted runs (True), or only the others that are finished (False).
    """
    words = search.lower().split()
    found = []
    for path in _run_folders(folder):
        run = summarize(path)
        text = f"{run.prompt} {run.run_id}".lower()
        if not all(word in text for word in words):
            continue
        if modality is not None and (run.modality or "").lower() != modality.lower():
            continue
        if accepted is not None and (
            run.status != "finished" or (run.accepted is True) != accepted
        ):
            continue
        found.append(run)
    return sorted(found, key=lambda run: run.run_id, reverse=True)


def _run_folders(folder: str | Path | None) -> Iterator[Path]:
    root = settings().runs if folder is None else Path(folder)
    try:
        places = sorted(root.expanduser().iterdir())
    except FileNotFoundError:
        return
    except (OSError, RuntimeError) as error:
        raise BadInput(f"cannot list the runs in {root} ({error}): give another folder") from error
    for place in places:
        if (place / REQUEST).is_file():
            yield place.resolve()


def summarize(path: Path) -> RunSummary:
    """One run's line in the list, from its JSON files; never fails on what is damaged."""
    try:
        folder = RunFolder.open(path)
        run = None
        if (path / RUN).is_file():
            run = Run.model_validate_json((path / RUN).read_bytes())
        first = _first_event(path)
    except (BadInput, OSError, ValueError):
        return RunSummary(run_id=path.name, folder=str(path), status="damaged")
    told = first.outputs.get("modality") if first else None
    return RunSummary(
        run_id=folder.run_id,
        folder=str(folder.path),
        status="finished" if run else "unfinished",
        prompt=folder.request.prompt,
        modality=str(told) if told else folder.request.modality,
        seed=folder.request.seed,
        started=first.started if first else _time_of(folder.run_id),
        accepted=run.accepted if run else None,
        images=[str(folder.path / Path(image).name) for image in run.images] if run else [],
        rounds=run.rounds if run else None,
        candidates=run.candidates if run else None,
        seconds=run.seconds if run else None,
        lineage=folder.lineage,
    )


def _first_event(path: Path) -> TraceEvent | None:
    if not (path / TRACE_LINES).is_file():
        return None
    with (path / TRACE_LINES).open(encoding="utf-8") as lines:
        return TraceEvent.model_validate_json(next(lines, ""))


def _time_of(run_id: str) -> str:
    try:
        started = datetime.strptime(run_id[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return started.isoformat(timespec="milliseconds")


def find_run(run: str, folder: str | Path | None = None) -> RunFolder:
    """The run with this id, or the only one whose id begins so.

    Looks among the folders that are there and nowhere else: no text leads out of `folder`.

    Args:
        run: A run id or its beginning.
        folder: Holds one folder a run; `MEDGEN_RUNS` when None.

    Raises:
        BadInput: None or several runs begin so, or the one that does is damaged.
    """
    root = settings().runs if folder is None else Path(folder)
    begins = [path for path in _run_folders(root) if run and _id_of(path).startswith(run)]
    exact = [path for path in begins if _id_of(path) == run]
    if len(exact or begins) == 1:
        return RunFolder.open((exact or begins)[0])
    if begins:
        raise BadInput(f"{len(begins)} runs in {root} begin with {run}: give more of the id")
    raise BadInput(f"no run {run!r} in {root}: `medgen trace list` shows those that are there")


def open_run(run: str, folder: str | Path | None = None) -> RunFolder:
    """The run that a person means on a command line: its folder, its id, or the id's beginning.

    Raises:
        BadInput: See `find_run`.
    """
    if run and (Path(run) / REQUEST).is_file():
        return RunFolder.open(Path(run))
    return find_run(run, folder)


def _id_of(path: Path) -> str:
    try:
        return str(json.loads((path / REQUEST).read_bytes())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return path.name


def load_run(folder: RunFolder | str | Path) -> Trace:
    """All that a run holds.

    Raises:
        BadInput: It cannot be read.
    """
    from medgen.graphs.checkpoints import read_state  # LangGraph, which a list does not need

    if not isinstance(folder, RunFolder):
        folder = RunFolder.open(Path(folder))
    state = read_state(folder)
    generator = state.get("generator", {})
    try:
        return Trace.model_validate(
            {
                "summary": summarize(folder.path),
                "request": folder.request,
                "plan": state.get("plan"),
                "generator": generator.get("name", ""),
                "setup": {
                    **dict(folder.setup),
                    "generator": generator.get("fingerprint", ""),
                    "knowledge": state.get("knowledge", ""),
                    "panel": state.get("panel", ""),
                },
                "facts": state.get("facts", []),
                "candidates": state.get("candidates", []),
                "choices": state.get("choices", []),
                "trials": state.get("trials", []),
                "events": state.get("events", []),
            }
        )
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BadInput(
            f"run {folder.run_id} cannot be read ({where}: {fault['msg']}): it was made by another "
            "release of medgen"
        ) from error

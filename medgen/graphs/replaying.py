"""Runs a run again, as it was asked and set up, and compares the images byte for byte.

A fork is replayed from the checkpoint that it began with. What cannot be the same (other weights,
other knowledge) is refused before anything is drawn.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from medgen.agents.state import AgentState
from medgen.data.images import load_image
from medgen.errors import BadInput
from medgen.graphs.agent import Agent
from medgen.graphs.checkpoints import moved, thread_of
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.forking import branch, history, with_settings_of
from medgen.graphs.run_folder import CANDIDATES, RunFolder
from medgen.graphs.runs import Trace, load_run
from medgen.graphs.setup import knowledge_fingerprint
from medgen.records import Lineage, Record, TraceEvent

LEADING_FOLDERS = re.compile(r'"(?:/|[A-Za-z]:)[^"]*/')


class ReplayedImage(Record):
    """One image beside its replay; the differences (a share of pixels, of 255) null when missing.

    Images whose pixels are equal can differ still, in what their files say.
    """

    name: str
    identical: bool
    differing_pixels: float | None = None
    largest_difference: int | None = None


class Replay(Record):
    """What came of a replay; `first_difference` names the first step that went another way.

    `folder` is the replay's own, null when it was removed because nothing differed.
    """

    run_id: str
    identical: bool
    images: list[ReplayedImage]
    first_difference: str | None = None
    notes: list[str]
    seconds: float
    folder: str | None = None


def replay(
    run: RunFolder,
    *,
    out: str | Path | None = None,
    agent: Agent | None = None,
    on_start: Callable[[str], None] | None = None,
    on_event: Callable[[TraceEvent], None] | None = None,
) -> Replay:
    """Run a finished run again, with its request, seed and settings, and compare.

    Args:
        run: The run to repeat; it stays as it is.
        out: Where the replay is kept; when None under `MEDGEN_RUNS`, and only if it differs.
        agent: Runs it; a new one when None.
        on_start: Told the name of each node as it starts.
        on_event: Told each node's trace event as it ends.

    Raises:
        BadInput: The run is not finished, or was made with other weights, panel or knowledge than
            are here; nothing was drawn then.
    """
    earlier = load_run(run)
    if earlier.summary.status != "finished":
        raise BadInput(f"run {run.run_id} is not finished: medgen agent --resume {run.run_id}")
    ready = with_settings_of(run, agent or Agent())
    with ready.collaborators.turn:
        _refuse_other_parts(earlier, ready.collaborators)
    folder = _begin(run, earlier, out)
    try:
        state = ready.drive(folder, on_start, on_event)
        found = _compared(run, earlier, folder, state)
    except BaseException:
        if out is None:
            shutil.rmtree(folder.path)
        raise
    if found.identical and out is None:
        shutil.rmtree(folder.path)
        return found
    ready.run(resume=folder.path, out=out)  # writes the record of what is done
    return found.model_copy(update={"folder": str(folder.path)})


def _refuse_other_parts(earlier: Trace, minds: Collaborators) -> None:
    made = earlier.setup
    here = {
        "generator weights": (made.generator, minds.generator.fingerprint),
        "knowledge": (made.knowledge, knowledge_fingerprint(minds)),
        "verifier panel": (made.panel, minds.panel.fingerprint),
    }
    for part, (recorded, found) in here.items():
        if recorded and recorded != found:
            raise BadInput(
                f"run {earlier.summary.run_id} was made with other {part} ({recorded[:12]}) than "
                f"are here ({found[:12]}): load those, or start a new run"
            )


def _begin(run: RunFolder, earlier: Trace, out: str | Path | None) -> RunFolder:
    """The replay's folder: anew from the request, or from the checkpoint that a fork began with."""
    lineage = earlier.summary.lineage
    again = Lineage(parent=run.run_id, node="parse")
    with history(run) as graph:
        if lineage is not None and lineage.node != "parse":
            for snapshot in graph.get_state_history(thread_of(run)):
                if (snapshot.metadata or {}).get("source") == "update":
                    state = moved(cast("AgentState", snapshot.values), run.path)
                    again = lineage.model_copy(update={"parent": run.run_id, "changes": {}})
                    return branch(graph, run, snapshot, state, again, out)
            raise BadInput(f"run {run.run_id} has lost the checkpoint that it began with")
        anew = cast("AgentState", {"request": run.request.model_dump(mode="json")})
        return branch(graph, run, None, anew, again, out)


def _compared(run: RunFolder, earlier: Trace, folder: RunFolder, state: AgentState) -> Replay:
    images = [
        _beside(run.path / name, folder.path / name, name)
        for name in sorted({*_pictures(run.path), *_pictures(folder.path)})
    ]
    events = [TraceEvent.model_validate(event) for event in state["events"]]
    identical = all(image.identical for image in images)
    return Replay(
        run_id=run.run_id,
        identical=identical,
        images=images,
        first_difference=_first_difference(earlier.events, events, images),
        notes=_notes(earlier, folder),
        seconds=round(sum(event.seconds for event in events), 3),
    )


def _pictures(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder))
        for place in (folder, folder / CANDIDATES)
        for path in place.glob("*.png")
    ]


def _beside(before: Path, after: Path, name: str) -> ReplayedImage:
    if not (before.is_file() and after.is_file()):
        return ReplayedImage(name=name, identical=False)
    if before.read_bytes() == after.read_bytes():
        return ReplayedImage(name=name, identical=True, differing_pixels=0, largest_difference=0)
    one, other = (np.asarray(load_image(path), dtype=np.int16) for path in (before, after))
    if one.shape != other.shape:
        return ReplayedImage(name=name, identical=False)
    difference = np.abs(one - other).max(axis=-1)
    return ReplayedImage(
        name=name,
        identical=False,
        differing_pixels=round(float((difference > 0).mean()), 6),
        largest_difference=int(difference.max()),
    )


def _name(event: TraceEvent) -> str:
    return event.node if event.round is None else f"{event.node} (round {event.round})"


def _told(event: TraceEvent) -> tuple[str, str]:
    """A step's name, and what came of it in whichever folder it ran."""
    return _name(event), LEADING_FOLDERS.sub('"', json.dumps(event.outputs, sort_keys=True))


def _first_difference(
    before: Sequence[TraceEvent], after: Sequence[TraceEvent], images: Sequence[ReplayedImage]
) -> str | None:
    """The first step with other outputs, or that drew other pixels; None where there is none."""
    differing = {Path(image.name).name for image in images if not image.identical}
    for one, other in zip(before, after, strict=False):
        if _told(one) != _told(other):
            return _name(one) if one.node == other.node else f"{_name(one)}, then {_name(other)}"
        drawn = other.outputs.get("images")
        if isinstance(drawn, list) and differing & {Path(path).name for path in drawn}:
            return _name(other)
    if len(before) != len(after):
        return _name(max(before, after, key=len)[min(len(before), len(after))])
    return None


def _notes(earlier: Trace, folder: RunFolder) -> list[str]:
    made, now = earlier.setup, folder.setup.versions
    notes = [
        f"{name} {version} then, {now.get(name, 'none')} now"
        for name, version in made.versions.items()
        if now.get(name) != version
    ]
    for part in ("generator", "knowledge", "panel"):
        if not getattr(made, part):
            notes.append(f"the fingerprint of the {part} was not recorded")
    if not made.settings:
        notes.append("the settings were not recorded; those of this process were used")
    if earlier.request.seconds is not None:
        notes.append("the run had a budget in seconds, so its rounds depend on the machine's speed")
    return notes

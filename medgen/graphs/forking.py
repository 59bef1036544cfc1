"""Runs that go on from a checkpoint of an earlier run, with a change or with none.

A fork is a run of its own: its folder has the parent's checkpoints up to the node, one more with
the changes, and the images that those speak of. The parent's folder is read and never written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from langgraph.types import StateSnapshot

from medgen.agents.state import AgentState, candidates_of
from medgen.errors import BadInput
from medgen.graphs.agent import Agent, Graph, build
from medgen.graphs.checkpoints import Saver, forget, moved, reading, thread_of, writing
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.fork_fields import NODES, REASONING, changed, settable
from medgen.graphs.results import RunResult
from medgen.graphs.run_folder import RunFolder
from medgen.graphs.setup import current_setup, settings_of
from medgen.records import Lineage, Request, TraceEvent
from medgen.settings import settings

ONCE = REASONING  # nodes that a run comes to once; the others once a round


def fork(
    run: RunFolder,
    node: str,
    changes: Mapping[str, object] | None = None,
    *,
    round: int | None = None,
    out: str | Path | None = None,
    agent: Agent | None = None,
    on_start: Callable[[str], None] | None = None,
    on_event: Callable[[TraceEvent], None] | None = None,
) -> RunResult:
    """Go on from a node of an earlier run, with changes, as a new run.

    Args:
        run: The earlier run; finished or not, it stays as it is.
        node: The first node to run again, "parse" to "record".
        changes: Values by name; `medgen.graphs.fork_fields.settable` says which can be set where.
        round: Which time the node is meant, for nodes that run once a round; the last when None.
        out: The new run's folder; one under `MEDGEN_RUNS` when None.
        agent: Runs it, with the settings that the earlier run recorded; a new one when None.
        on_start: Told the name of each node as it starts.
        on_event: Told each node's trace event as it ends.

    Raises:
        BadInput: The node, round or a change cannot be used; then nothing was written.
        MedgenError: The new run stopped on an error; it can be resumed.
    """
    folder = prepare_fork(run, node, changes, round=round, out=out)
    try:
        ready = with_settings_of(run, agent or Agent())
        return ready.run(resume=folder.path, out=out, on_start=on_start, on_event=on_event)
    except BadInput:
        folder.discard()
        raise


def with_settings_of(run: RunFolder, agent: Agent) -> Agent:
    """An agent that works with the settings which a run recorded."""
    minds = agent.collaborators
    return Agent(minds.with_settings(settings_of(run.setup.settings, minds.settings)))


def prepare_fork(
    run: RunFolder,
    node: str,
    changes: Mapping[str, object] | None = None,
    *,
    round: int | None = None,
    out: str | Path | None = None,
) -> RunFolder:
    """The folder of a fork, ready for `Agent.run(resume=folder.path)`; see `fork`.

    Raises:
        BadInput: The node, round or a change cannot be used; then nothing was written.
    """
    settable(node)  # refuses what is no node
    if round is not None and node in (*ONCE, "record"):
        raise BadInput(f"{node} runs once: leave the round out")
    with history(run) as graph:
        snapshot = None if node == "parse" else _before(graph, run, node, round)
        if snapshot is None:
            state = cast("AgentState", {"request": run.request.model_dump(mode="json")})
        else:
            state = moved(cast("AgentState", snapshot.values), run.path)
        state, named = changed(state, node, changes or {})
        lineage = Lineage(
            parent=run.run_id,
            node=node,
            round=None if node in ONCE else _round_of(state, node),
            changes=named,
            events=len(state.get("events", [])),
        )
        return branch(graph, run, snapshot, state, lineage, out)


@contextmanager
def history(run: RunFolder) -> Iterator[Graph]:
    """The graph over a copy in memory of a run's checkpoints, to be read."""
    with reading(run) as saver:
        yield build(Collaborators(), saver)


def _round_of(state: AgentState, node: str) -> int:
    """The round that the trace gives to a node which runs next on this state."""
    return state["round"] + (node == "refine")


def _before(graph: Graph, run: RunFolder, node: str, round: int | None) -> StateSnapshot:
    came_to: list[str] = []
    for snapshot in graph.get_state_history(thread_of(run)):
        for following in snapshot.next:
            if following not in NODES:
                continue
            values = cast("AgentState", snapshot.values)
            turn = None if following in ONCE else _round_of(values, following)
            if following == node and round in (None, turn):
                return snapshot
            came_to.append(following if turn is None else f"{following} (round {turn})")
    met = ", ".join(dict.fromkeys(reversed(came_to))) or "no node"
    when = "" if round is None else f" in round {round}"
    raise BadInput(f"run {run.run_id} never came to {node}{when}: it came to {met}")


def branch(
    graph: Graph,
    run: RunFolder,
    snapshot: StateSnapshot | None,
    state: AgentState,
    lineage: Lineage,
    out: str | Path | None,
) -> RunFolder:
    """A new run's folder that goes on from a snapshot of another run with another state.

    Args:
        graph: Over the other run's checkpoints.
        run: The other run.
        snapshot: The checkpoint to go on from; None begins anew with the state's request.
        state: What the next node shall find, its paths leading into the other run's folder.
        lineage: Where the new run comes from.
        out: The folder; one under `MEDGEN_RUNS` when None.

    Raises:
        BadInput: The folder cannot be written; then nothing was written.
    """
    request = Request.model_validate(state["request"])
    setup = current_setup(settings_of(run.setup.settings, settings()))
    folder = RunFolder.create(request, out, setup=setup, lineage=lineage)
    if snapshot is None:
        return folder
    try:
        there = moved(state, folder.path)
        there["run_id"] = folder.run_id
        _copy_images(state, there)
        with writing(folder) as saver:
            _copy_checkpoints(graph, run, snapshot, saver, folder)
            values = {name: value for name, value in there.items() if name != "events"}
            own = thread_of(folder)
            own["configurable"]["checkpoint_id"] = _checkpoint_id(snapshot)
            build(Collaborators(), saver).update_state(own, values, _node_before(lineage))
    except BaseException:
        forget(folder)
        folder.discard()
        raise
    return folder


def _checkpoint_id(snapshot: StateSnapshot) -> str:
    return str(snapshot.config["configurable"]["checkpoint_id"])


def _node_before(lineage: Lineage) -> str:
    if lineage.node == "generate" and (lineage.round or 1) > 1:
        return "refine"
    if lineage.node == "record":
        return "select"
    return NODES[NODES.index(lineage.node) - 1]


def _copy_checkpoints(
    graph: Graph, run: RunFolder, snapshot: StateSnapshot, saver: Saver, folder: RunFolder
) -> None:
    """Copy the thread up to the snapshot; without pending writes, or the node would not run."""
    source = cast("Saver", graph.checkpointer)
    last = _checkpoint_id(snapshot)
    for saved in reversed(list(source.list(thread_of(run)))):
        if saved.config["configurable"]["checkpoint_id"] > last:
            continue
        own = thread_of(folder)
        if saved.parent_config is not None:
            parent = saved.parent_config["configurable"]["checkpoint_id"]
            own["configurable"]["checkpoint_id"] = parent
        saver.put(own, saved.checkpoint, saved.metadata, {})


def _copy_images(state: AgentState, there: AgentState) -> None:
    """Copy what candidates show and start from, as far as it is drawn yet."""
    for candidate, copied in zip(candidates_of(state), candidates_of(there), strict=True):
        pairs = [
            (candidate.image, copied.image),
            (candidate.conditioning.init_image, copied.conditioning.init_image),
            (candidate.conditioning.mask_image, copied.conditioning.mask_image),
        ]
        for source, target in pairs:
            if source and target and source != target and Path(source).is_file():
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

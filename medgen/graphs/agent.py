"""The agent: the graph of nodes, how it is run, resumed and read, and nothing of what nodes do.

One run is one LangGraph thread (its id is the run's) whose state holds all images asked for: each
round draws and verifies the candidates of every image not yet settled, so the reasoning is done
once and the generator works in batches. Checkpoints lie in the run's own folder, or in the database
of `MEDGEN_CHECKPOINTS`, written before the next node starts; a run killed anywhere goes on at the
node it was in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from medgen.agents.state import AgentState
from medgen.errors import BadInput, MedgenError
from medgen.graphs import nodes
from medgen.graphs.checkpoints import forget, writing
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.graphs.feedback import log_run
from medgen.graphs.live_tracing import start_tracing
from medgen.graphs.outcome import conclude
from medgen.graphs.plan import REASONING, Node, reason, request_of
from medgen.graphs.results import RunResult
from medgen.graphs.run_folder import RunFolder
from medgen.graphs.setup import current_setup
from medgen.graphs.trace_html import trace_page
from medgen.records import Plan, TraceEvent
from medgen.settings import settings

Graph = CompiledStateGraph[AgentState, None, AgentState, AgentState]

DRAWING: tuple[Node, ...] = (nodes.compose, nodes.generate, nodes.verify, nodes.select)


def after_selection(state: AgentState) -> str:
    """Refine while an image is unsettled, else record."""
    unsettled = any(choice["decision"] == "refine" for choice in state["choices"])
    return "refine" if unsettled else "record"


def build(
    collaborators: Collaborators, checkpointer: BaseCheckpointSaver[Any] | None, **options: Any
) -> Graph:
    """Wire the graph.

    Args:
        collaborators: What the nodes work with.
        checkpointer: Where states are kept; None where LangGraph's own tools bring one.
        options: Passed to LangGraph's `compile`.
    """
    graph = StateGraph(AgentState)
    for node in (*REASONING, *DRAWING, nodes.refine, nodes.record):
        graph.add_node(node.__name__, cast("Any", traced(node, collaborators)))
    path = [node.__name__ for node in (*REASONING, *DRAWING)]
    graph.add_edge(START, path[0])
    for before, after in pairwise(path):
        graph.add_edge(before, after)
    graph.add_conditional_edges("select", after_selection, ["refine", "record"])
    graph.add_edge("refine", "generate")
    graph.add_edge("record", END)
    return graph.compile(checkpointer=checkpointer, **options)


def traced(node: Node, collaborators: Collaborators) -> Callable[[AgentState], dict[str, Any]]:
    """A node as LangGraph wants it: its update and its one trace event, in one write."""

    def run(state: AgentState) -> dict[str, Any]:
        with collaborators.turn:
            started, clock = datetime.now(UTC), time.perf_counter()
            step = node(state, collaborators)
            seconds = time.perf_counter() - clock
        event = TraceEvent(
            node=node.__name__,
            round=step.round,
            started=started.isoformat(timespec="milliseconds"),
            seconds=round(seconds, 4),
            inputs=step.inputs,
            outputs=step.outputs,
            decided_by=step.decided_by,
            tokens=step.tokens,
            cost=step.cost,
        )
        return {**step.update, "events": [event.model_dump(mode="json")]}

    return run


def graph() -> Graph:
    """The graph for LangGraph's own tools (`langgraph.json`); they bring their checkpointer."""
    return build(shared_collaborators(), None)


class Agent:
    """Reasons about a request, draws, measures, refines and explains.

    Threads may share one: each has a run of its own, and a step of one waits for a step of another.

    Args:
        collaborators: A generator, panel, store or case index of the caller's own; this
            process's shared ones, loaded by the settings, when None.
    """

    def __init__(self, collaborators: Collaborators | None = None) -> None:
        self.collaborators = collaborators or shared_collaborators()

    def plan(self, prompt: str, modality: str | None = None) -> Plan:
        """What would be drawn, for which reasons; draws and writes nothing.

        Raises:
            BadInput: The prompt cannot be understood.
        """
        return reason(request_of(prompt, modality), self.collaborators)

    def run(
        self,
        prompt: str = "",
        modality: str | None = None,
        *,
        seed: int = 0,
        images: int = 1,
        rounds: int | None = None,
        candidates: int | None = None,
        seconds: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str | None = None,
        out: str | Path | None = None,
        resume: str | Path | None = None,
        on_start: Callable[[str], None] | None = None,
        on_event: Callable[[TraceEvent], None] | None = None,
    ) -> RunResult:
        """Draw `images` images of a prompt, or go on with an earlier run.

        Args:
            prompt: What to draw; not needed with `resume`.
            modality: A modality over the one in the prompt.
            seed: The same seed and request give the same image bytes on one kind of processor.
            images: How many images, at least 1.
            rounds: Rounds at most, at least 1; `MEDGEN_ROUNDS` when None.
            candidates: Candidates a round, at least 1; `MEDGEN_CANDIDATES` when None. The first
                round draws two at least: the control and one composed candidate.
            seconds: No new round starts after so many working seconds; `MEDGEN_SECONDS` when None.
            steps: Sampling steps; the settings' when None.
            guidance: Classifier-free guidance scale; the settings' when None.
            negative: What not to draw; the composer's when None.
            out: The folder for this run's files; a new one under `MEDGEN_RUNS` when None.
            resume: Run id or folder of a run that was cut off.
            on_start: Told the name of each node as it starts, in the calling thread.
            on_event: Told each node's trace event as it ends. Either may raise `Cancelled`.

        Returns:
            The run's record; `accepted` is true when every image was accepted, and an image that
            was not is the best candidate, marked so.

        Raises:
            BadInput: The request, folder or run cannot be used; a new run then leaves nothing.
            Cancelled: A callback raised it; the run stops after the node and can be resumed.
            MedgenError: The run stopped on an error; it can be resumed.
        """
        if resume is not None:
            folder = RunFolder.open(resume, out)
            if prompt and prompt != folder.request.prompt:
                raise BadInput(
                    f"run {folder.run_id} was asked {folder.request.prompt!r}: resume it without "
                    "a prompt, or start a new run without --resume"
                )
        else:
            defaults = settings()
            request = request_of(
                prompt,
                modality,
                seed=seed,
                images=_at_least_one("images", images),
                rounds=_at_least_one("rounds", defaults.rounds if rounds is None else rounds),
                candidates=_at_least_one(
                    "candidates", defaults.candidates if candidates is None else candidates
                ),
                seconds=seconds if seconds is not None else defaults.seconds,
                steps=steps,
                guidance=guidance,
                negative=negative,
            )
            setup = current_setup(self.collaborators.settings)
            folder = RunFolder.create(request, out, setup=setup)
        try:
            return self._finish(folder, self.drive(folder, on_start, on_event))
        except BadInput:
            if resume is None:
                forget(folder)
                folder.discard()
            raise
        except MedgenError:
            raise
        except Exception as error:
            raise MedgenError(
                f"run {folder.run_id} stopped ({type(error).__name__}: {error}): "
                f"go on with --resume {folder.path if out is not None else folder.run_id}"
            ) from error

    @staticmethod
    def _finish(folder: RunFolder, state: AgentState) -> RunResult:
        result = conclude(state)
        events = [TraceEvent.model_validate(event) for event in state["events"]]
        folder.write_trace(events, trace_page(state, result))
        folder.write_run(result)
        log_run(state)
        return result

    def drive(
        self,
        folder: RunFolder,
        on_start: Callable[[str], None] | None = None,
        on_event: Callable[[TraceEvent], None] | None = None,
    ) -> AgentState:
        """Run the graph in a run's folder from where it is to its end, and nothing after that.

        Returns:
            The last state, every image settled and written; `run` makes the run's record of it.
        """
        start_tracing()
        start: AgentState | None = {
            "run_id": folder.run_id,
            "folder": str(folder.path),
            "request": folder.request.model_dump(mode="json"),
        }
        with writing(folder) as saver:
            graph = build(self.collaborators, saver)
            thread: Any = {
                "configurable": {"thread_id": folder.run_id},
                "recursion_limit": 12 + 4 * folder.request.rounds,
                "run_name": "medgen run",
                "metadata": {"medgen.run": folder.run_id},
            }
            begun = graph.get_state(thread).values
            if begun.get("events"):
                start = None
                if begun["folder"] != str(folder.path):
                    raise BadInput(
                        f"run {folder.run_id} was begun in {begun['folder']}, not {folder.path}: "
                        "move it back to resume it"
                    )
            steps = graph.stream(start, thread, stream_mode=["tasks", "updates"], durability="sync")
            for mode, payload in cast("Any", steps):
                if mode == "tasks" and "triggers" in payload and on_start is not None:
                    on_start(payload["name"])
                elif mode == "updates" and on_event is not None:
                    for update in payload.values():
                        on_event(TraceEvent.model_validate(update["events"][0]))
            return cast("AgentState", graph.get_state(thread).values)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise BadInput(f"{name} is {value}: give 1 or more")
    return value

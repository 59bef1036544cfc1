"""A run's outcome as a page tells it: result beside control, findings, candidates, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medgen.agents.state import Choice
from medgen.graphs.runs import Trace, load_run
from medgen.records import Candidate
from medgen.studio.pages import page

OUTLINED = "Chest X-ray"


@dataclass(frozen=True)
class Settled:
    """One of the images asked for: the choice, the chosen candidate, and the control."""

    choice: Choice
    best: Candidate
    control: Candidate


def run_html(folder: Path) -> str:
    """What a run came to, of an unfinished one what there is.

    Raises:
        BadInput: The run cannot be read.
    """
    trace = load_run(folder)
    return page(
        "run.html.j2",
        trace=trace,
        folder=folder.name,
        stories=_settled(trace),
        chosen={choice.best for choice in trace.choices},
        overlays=trace.plan is not None and trace.plan.modality == OUTLINED,
    )


def _settled(trace: Trace) -> list[Settled]:
    by_id = {one.id: one for one in trace.candidates}
    settled = []
    for choice in trace.choices:
        own = [one for one in trace.candidates if one.index == choice.index]
        control = next(one for one in own if one.control)
        settled.append(Settled(choice, by_id[choice.best], control))
    return settled

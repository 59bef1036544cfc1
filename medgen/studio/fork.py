"""Forking a run from the page: go on from one of its steps, with one value changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from medgen.errors import BadInput
from medgen.settings import settings
from medgen.studio.drawing import Tell
from medgen.studio.files import run_folder
from medgen.studio.generate import (
    DRAWING_QUEUE,
    Shown,
    begin,
    cancel_drawing,
    session_of,
    watch,
)
from medgen.studio.pages import page
from medgen.studio.story import DOING

if TYPE_CHECKING:
    from medgen.graphs.results import RunResult

NOTHING = "nothing, run it as it was"
LONGEST_VALUE = 20_000
STEPS = {words: node for node, words in DOING.items()}


def fork_panel(chosen: gr.State) -> None:
    """Lay the panel out and wire it.

    Args:
        chosen: Holds the name of the folder of the run to fork.
    """
    gr.HTML(page("fork.html.j2"))
    with gr.Row():
        step = gr.Dropdown(
            list(STEPS), value=DOING["compose"], label="Go on at this step", filterable=False
        )
        field = gr.Dropdown(
            _fields(DOING["compose"]), value="seed", label="Change", filterable=False
        )
        value = gr.Textbox(label="To", elem_id="fork-value", max_length=LONGEST_VALUE)
    with gr.Row():
        go = gr.Button("Fork", variant="primary", elem_id="fork")
        cancel = gr.Button("Cancel")
    status = gr.HTML("", elem_id="fork-status")
    progress = gr.HTML("", elem_id="fork-progress")
    outcome = gr.HTML("", elem_id="fork-outcome")
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    step.change(
        lambda words: gr.update(choices=_fields(words), value=NOTHING), step, field, **private
    )
    at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    go.click(begin, **at_once).then(
        fork_run,
        [chosen, step, field, value],
        [status, progress, outcome],
        show_progress_on=status,
        show_progress="minimal",
        concurrency_limit=1,
        concurrency_id=DRAWING_QUEUE,
        api_visibility="private",
    )
    cancel.click(cancel_drawing, outputs=status, **at_once)


def _fields(words: str) -> list[str]:
    from medgen.graphs.fork_fields import settable

    return [NOTHING, *settable(STEPS[words])]


async def fork_run(
    chosen: str, step: str, field: str, value: str, request: gr.Request
) -> AsyncIterator[Shown]:
    """Fork the chosen run and yield the status, the steps so far and the outcome, as HTML."""

    def work(tell: Tell) -> RunResult:
        from medgen.graphs.forking import fork
        from medgen.graphs.run_folder import RunFolder

        folder = run_folder(settings().runs, chosen) if chosen else None
        if folder is None:
            raise BadInput("no run is chosen: choose one on the left")
        if len(value) > LONGEST_VALUE:
            raise BadInput(f"the value has {len(value)} characters: give {LONGEST_VALUE} at most")
        changes = {} if field == NOTHING else {field: value.strip()}
        return fork(RunFolder.open(folder), STEPS[step], changes, on_start=tell, on_event=tell)

    async for shown in watch(work, session_of(request)):
        yield shown

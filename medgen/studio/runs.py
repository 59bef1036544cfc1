"""The Runs tab: find a run, see what came of it, open its trace, fork it.

A run is named by its folder under the studio's runs folder and by nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from medgen.errors import BadInput, MedgenError
from medgen.graphs.run_folder import TRACE_PAGE
from medgen.graphs.runs import list_runs
from medgen.settings import settings
from medgen.studio.files import run_folder
from medgen.studio.fork import fork_panel
from medgen.studio.outcome import run_html
from medgen.studio.pages import asset, page

ANY_OUTCOME, ACCEPTED, NOT_ACCEPTED, UNFINISHED = "all", "accepted", "not accepted", "unfinished"
EVERY = "every modality"
LISTED = 60


def runs_tab(tab: gr.Tab, modalities: list[str]) -> None:
    """Lay the tab out and wire it.

    Args:
        tab: The tab itself; the list is read anew when it is opened.
        modalities: Names to choose from.
    """
    chosen = gr.State("")
    with gr.Row(elem_classes="halves"):
        with gr.Column(scale=2, min_width=320):
            search = gr.Textbox(
                label="Search", placeholder="words of the prompt, or a run's id", elem_id="search"
            )
            with gr.Row():
                modality = gr.Dropdown(
                    [EVERY, *modalities],
                    value=EVERY,
                    label="Modality",
                    filterable=False,
                    min_width=140,
                )
                outcome = gr.Dropdown(
                    [ANY_OUTCOME, ACCEPTED, NOT_ACCEPTED, UNFINISHED],
                    value=ANY_OUTCOME,
                    label="Outcome",
                    filterable=False,
                    min_width=140,
                )
            listed = gr.HTML("", elem_id="runs", js_on_load=asset("runs.js"))
        with gr.Column(scale=5, min_width=480), gr.Tabs():
            with gr.Tab("Outcome"):
                told = gr.HTML(page("runs_empty.html.j2"), elem_id="run")
            with gr.Tab("Trace"):
                trace = gr.HTML(page("runs_empty.html.j2"), elem_id="trace")
            with gr.Tab("Fork"):
                fork_panel(chosen)
    queue: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    filters = [search, modality, outcome]
    gr.on(
        [tab.select, search.change, modality.change, outcome.change],
        list_html,
        filters,
        listed,
        trigger_mode="always_last",
        **queue,
    )
    listed.select(open_run, outputs=[chosen, told, trace], **queue)


def list_html(search: str, modality: str, outcome: str) -> str:
    """The runs that fit, newest first, as a list of buttons."""
    accepted = {ACCEPTED: True, NOT_ACCEPTED: False}.get(outcome)
    named = None if modality == EVERY else modality
    try:
        found = list_runs(search=search, modality=named, accepted=accepted)
    except MedgenError as error:
        return page("status.html.j2", kind="error", text=str(error))
    if outcome == UNFINISHED:
        found = [run for run in found if run.status == "unfinished"]
    shown = [(run, Path(run.folder).name) for run in found[:LISTED]]
    return page("runs.html.j2", shown=shown, total=len(found))


def open_run(chosen: gr.EventData) -> tuple[str, str, str]:
    """The chosen run's folder name, and its outcome and trace as HTML."""
    name = str((chosen._data or {}).get("run", ""))
    try:
        folder = run_folder(settings().runs, name)
        if folder is None:
            raise BadInput(f"run {name} is not there any more: search again")
        trace = page("trace.html.j2", folder=folder.name, finished=(folder / TRACE_PAGE).is_file())
        return folder.name, run_html(folder), trace
    except MedgenError as error:
        text = str(error)[:1].upper() + str(error)[1:]
        return "", page("status.html.j2", kind="error", text=text), ""

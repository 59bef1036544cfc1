"""The Datasets tab: how far a folder of runs has come, how balanced it is, what was rejected."""

from __future__ import annotations

from typing import Any

import gradio as gr

from medgen.errors import MedgenError
from medgen.settings import settings
from medgen.studio.accounts import account_for, run_folders
from medgen.studio.pages import page

EVERY_SECONDS = 10


def datasets_tab(tab: gr.Tab) -> None:
    """Lay the tab out and wire it."""
    with gr.Row():
        folder = gr.Dropdown(
            _names(), value=_names()[0], label="Folder of runs", filterable=False, scale=3
        )
        follow = gr.Checkbox(False, label=f"Count again every {EVERY_SECONDS} seconds", scale=1)
        again = gr.Button("Count", elem_id="count-dataset", scale=1)
    table = gr.HTML("", elem_id="dataset")
    clock = gr.Timer(EVERY_SECONDS, active=False)
    queue: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(lambda: gr.update(choices=_names()), outputs=folder, **queue)
    gr.on(
        [again.click, folder.change, clock.tick, tab.select],
        accounts_html,
        folder,
        table,
        concurrency_limit=1,
        **queue,
    )
    follow.change(lambda on: gr.update(active=on), follow, clock, **queue)


def _names() -> list[str]:
    return [str(path.name or path) for path in run_folders(settings().runs.resolve())]


def accounts_html(name: str) -> str:
    """A folder's accounts as HTML; only the runs folder and those within it can be named."""
    known = {str(path.name or path): path for path in run_folders(settings().runs.resolve())}
    folder = known.get(name)
    if folder is None:
        return page("status.html.j2", kind="error", text="That folder is not there any more.")
    try:
        return page("accounts.html.j2", accounts=account_for(folder), folder=name)
    except MedgenError as error:
        return page("status.html.j2", kind="error", text=str(error))

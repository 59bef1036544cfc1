"""The studio as a web application: tabs, look, routes and who may talk to it.

Wires what the other modules of this room make; starts nothing but the server.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
from fastapi import FastAPI

from medgen.access import Access
from medgen.knowledge.cards import modality_cards
from medgen.settings import settings
from medgen.studio.check import check_tab
from medgen.studio.datasets import datasets_tab
from medgen.studio.files import Pictures, router
from medgen.studio.generate import generate_tab
from medgen.studio.guard import UPLOAD_BYTES, Guard
from medgen.studio.pages import asset
from medgen.studio.rate import rate_tab
from medgen.studio.runs import runs_tab

TITLE = "medgen studio"
WAITING = 64
SESSIONS = 500
CACHE_SECONDS = 3600


def build(pictures: Pictures, real: Path | None) -> gr.Blocks:
    """The page with its tabs.

    Args:
        pictures: Gives pictures to be rated their names.
        real: A folder of real images for the blinded test, if any.
    """
    modalities = list(modality_cards())
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
    ) as blocks:
        gr.HTML(asset("header.html"), elem_id="header")
        with gr.Tabs():
            with gr.Tab("Generate", id="generate"):
                generate_tab(modalities)
            with gr.Tab("Runs", id="runs") as runs:
                runs_tab(runs, modalities)
            with gr.Tab("Rate", id="rate"):
                rate_tab(pictures, real, modalities)
            with gr.Tab("Datasets", id="datasets") as datasets:
                datasets_tab(datasets)
            with gr.Tab("Check", id="check"):
                check_tab(modalities)
    blocks.queue(max_size=WAITING, default_concurrency_limit=4, api_open=False)
    blocks.state_session_capacity = SESSIONS
    return blocks


def theme() -> gr.themes.Base:
    """System fonts alone, so that nothing is fetched; colours that hold in light and dark."""
    sans = ["system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=sans,
        font_mono=["ui-monospace", "Consolas", "monospace"],
        spacing_size="sm",
        radius_size="sm",
    ).set(  # contrasts of 4.5:1 and more
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        link_text_color_dark="*secondary_300",
        link_text_color_visited_dark="*secondary_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
    )


def application(access: Access, real: Path | None = None) -> FastAPI:
    """Everything that answers requests, behind the guard.

    Args:
        access: Where it listens, and its token.
        real: A folder of real images for the blinded test, if any.
    """
    pictures = Pictures()
    app = FastAPI(
        title=TITLE, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.include_router(router(settings().runs, pictures))
    app.add_middleware(Guard, access=access)
    return gr.mount_gradio_app(
        app,
        build(pictures, real),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        show_error=True,
        theme=theme(),
        css=asset("studio.css"),
        head=f"<script>{asset('studio.js')}</script>",
    )


def serve(access: Access, port: int, real: Path | None = None) -> None:
    """Answer requests until interrupted."""
    import uvicorn

    uvicorn.run(application(access, real), host=access.host, port=port, log_level="warning")

"""The Check tab: measure a picture of one's own, as `medgen verify` does."""

from __future__ import annotations

import base64
from pathlib import Path

import gradio as gr
import numpy as np

from medgen.data.images import load_image, png_bytes
from medgen.errors import BadInput, MedgenError
from medgen.studio.generate import AUTOMATIC, DRAWING_QUEUE, LONGEST_PROMPT
from medgen.studio.guard import UPLOAD_BYTES
from medgen.studio.pages import page

TYPES = [".png", ".jpg", ".jpeg"]


def check_tab(modalities: list[str]) -> None:
    """Lay the tab out and wire it.

    Args:
        modalities: Names to choose from.
    """
    with gr.Row(elem_classes="halves"):
        with gr.Column(scale=2, min_width=320):
            picture = gr.File(
                label=f"PNG or JPEG, up to {UPLOAD_BYTES // 1_000_000} MB",
                file_types=TYPES,
                elem_id="upload",
                height=160,
            )
            prompt = gr.Textbox(
                label="What it should show, if you like", max_length=LONGEST_PROMPT, lines=2
            )
            modality = gr.Dropdown(
                [AUTOMATIC, *modalities], value=AUTOMATIC, label="Modality", filterable=False
            )
            measure = gr.Button("Measure", variant="primary", elem_id="measure")
        with gr.Column(scale=5, min_width=480):
            measured = gr.HTML("", elem_id="measured")
    measure.click(
        check_html,
        [picture, prompt, modality],
        measured,
        concurrency_limit=1,
        concurrency_id=DRAWING_QUEUE,
        api_name="check",
    )


def check_html(picture: str | None, prompt: str, modality: str) -> str:
    """What was measured on an uploaded picture, as HTML."""
    if not picture:
        return page("status.html.j2", kind="error", text="Choose a picture first.")
    path = Path(picture)
    try:
        if path.suffix.lower() not in TYPES:
            raise BadInput(f"{path.name} is no PNG or JPEG: choose another picture")
        return _measured(path, prompt.strip() or None, None if modality == AUTOMATIC else modality)
    except MedgenError as error:
        text = str(error).replace(str(path), path.name)
        return page("status.html.j2", kind="error", text=text[:1].upper() + text[1:])


def _measured(path: Path, prompt: str | None, modality: str | None) -> str:
    from medgen.graphs.verify import verify

    image = load_image(path)
    (result,) = verify(path, prompt, modality)
    image.thumbnail((320, 320))
    shown = base64.b64encode(png_bytes(np.asarray(image), {})).decode()
    return page("check.html.j2", critique=result.critique, name=path.name, picture=shown)

"""The Rate tab: one picture after another, answered by keyboard, and how far raters agree.

A stage of plain HTML shows the picture and its answers; `assets/rate.js` turns keys and clicks
into one event with the name of what was shown, so that no answer reaches a picture that its rater
has not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from medgen.errors import BadInput, MedgenError
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import RealOrSynthetic, new_id
from medgen.measure.statistics import share_interval
from medgen.studio.files import Pictures
from medgen.studio.pages import asset, page
from medgen.studio.questions import to_compare, to_rate, to_tell_apart
from medgen.studio.rating import GRADES, Desk, Task

TASKS: dict[str, Task] = {
    "Rate 1 to 5": "rating",
    "Compare two": "pair",
    "Real or synthetic": "real",
}
LEVELS = {
    "not said": None,
    "1: student or engineer": 1,
    "2: resident": 2,
    "3: specialist": 3,
}
EVERY = "every modality"
MOST = 200


def rate_tab(pictures: Pictures, real: Path | None, modalities: list[str]) -> None:
    """Lay the tab out and wire it.

    Args:
        pictures: Gives pictures their names.
        real: A folder of real images for the blinded test; without it that test is not offered.
        modalities: Names to choose from.
    """
    setup, asked, start = _setup(real is not None, modalities)
    stage = gr.HTML(
        page("stage_empty.html.j2", message=None),
        elem_id="stage",
        js_on_load=asset("rate.js"),
    )
    with gr.Accordion("Agreement between raters, and export", open=False, elem_id="agreement"):
        gr.HTML(page("export.html.j2"))
        count_up = gr.Button("Count now", elem_id="count")
        agreement = gr.HTML("", elem_id="agreement-table")
    desk = gr.State(None)
    queue: dict[str, Any] = {
        "concurrency_limit": 1,
        "concurrency_id": "rating",
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    begin = _beginner(pictures, real)
    start.click(begin, asked, [desk, stage, setup], **queue)
    stage.submit(answer, [desk], [desk, stage], **queue)
    count_up.click(agreement_html, outputs=agreement, **queue)


def _setup(blinded: bool, modalities: list[str]) -> tuple[gr.Accordion, list[Component], gr.Button]:
    """Who rates what: the fold, its controls in the order that `begin` takes, and the button."""
    tasks = [task for task in TASKS if blinded or TASKS[task] != "real"]
    with gr.Accordion("Who rates what", open=True, elem_id="rate-setup") as setup, gr.Row():
        rater = gr.Textbox(label="Your name", max_length=80, elem_id="rater", min_width=160)
        level = gr.Dropdown(
            list(LEVELS), value="not said", label="Expertise", filterable=False, min_width=160
        )
        task = gr.Radio(tasks, value=tasks[0], label="Task", elem_id="task", min_width=330, scale=3)
        modality = gr.Dropdown(
            [EVERY, *modalities],
            value=EVERY,
            label="Modality",
            filterable=False,
            min_width=160,
            elem_id="rate-modality",
        )
        count = gr.Number(
            40,
            label="How many",
            elem_id="how-many",
            precision=0,
            minimum=1,
            maximum=MOST,
            min_width=90,
            scale=1,
        )
        start = gr.Button("Start", variant="primary", elem_id="rate-start", min_width=100)
    return setup, [rater, level, task, modality, count], start


def _beginner(pictures: Pictures, real: Path | None) -> Callable[..., tuple[Desk | None, str, Any]]:
    def begin(
        rater: str, level: str, task: str, modality: str, count: float | None
    ) -> tuple[Desk | None, str, Any]:
        """Gather what the rater is to answer and show the first item."""
        try:
            log = FeedbackLog()
            named = None if modality == EVERY else modality
            kind, most, side = TASKS[task], int(min(max(count or MOST, 1), MOST)), None
            if kind == "rating":
                items = to_rate(log, rater.strip(), named, most)
            elif kind == "pair":
                items = to_compare(log, rater.strip(), named, most)
            elif real is None or named is None:
                raise BadInput("choose the modality of the real images: both kinds must share it")
            else:
                items, side = to_tell_apart(log, rater.strip(), named, real, most)
            desk = Desk(log, pictures, kind, rater, LEVELS[level], items, side)
        except (MedgenError, KeyError) as error:
            return None, page("stage_empty.html.j2", message=_sentence(error)), gr.skip()
        return desk, stage_html(desk), gr.update(open=False)

    return begin


def answer(desk: Desk | None, given: gr.EventData) -> tuple[Desk | None, str]:
    """Log what the stage sends, and show what comes next."""
    if desk is None:
        again = "The page was away for long: say again who rates what. Every answer is kept."
        return None, page("stage_empty.html.j2", message=again)
    data = dict(given._data or {})
    try:
        if data.get("value") == "back":
            desk.back()
        elif data.get("value") == "skip":
            desk.skip(str(data.get("item")))
        else:
            desk.answer(data)
    except MedgenError as error:
        return desk, stage_html(desk, error=_sentence(error))
    return desk, stage_html(desk)


def stage_html(desk: Desk, error: str | None = None) -> str:
    """The item that a desk shows, or what was done when there is none left."""
    if desk.shown is None:
        return page("stage_done.html.j2", desk=desk, told_apart=_told_apart(desk))
    return page(
        "stage.html.j2", desk=desk, shown=desk.shown, grades=GRADES, error=error, turn=new_id()
    )


def _told_apart(desk: Desk) -> tuple[int, int, float, float] | None:
    guesses = [one for one in desk.answers if isinstance(one, RealOrSynthetic)]
    if not guesses:
        return None
    right = sum(one.guess == one.truth for one in guesses)
    return right, len(guesses), *share_interval(right, len(guesses))


def agreement_html() -> str:
    """How far the raters in the log agree, as a table."""
    try:
        log = FeedbackLog()
        guesses: dict[str, list[bool]] = {}
        for one in log.guesses(source="human"):
            guesses.setdefault(one.rater, []).append(one.guess == one.truth)
        told = {
            rater: (sum(right), len(right), *share_interval(sum(right), len(right)))
            for rater, right in guesses.items()
        }
        stats = log.stats()
        return page("agreement.html.j2", stats=stats, told=told)
    except MedgenError as error:
        return page("status.html.j2", kind="error", text=_sentence(error))


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]

"""The Generate tab: ask for an image, watch it being drawn, see it beside its control.

Runs wait for each other in Gradio's queue, one at a time; whoever leaves the page or cancels
stops their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from medgen.errors import BadInput, Cancelled, MedgenError
from medgen.records import TraceEvent
from medgen.settings import settings
from medgen.studio.drawing import Cancellations, Tell, steps_of
from medgen.studio.outcome import run_html
from medgen.studio.pages import page
from medgen.studio.story import DOING, Story

if TYPE_CHECKING:
    from medgen.graphs.results import RunResult

DRAWING_QUEUE = "drawing"
AUTOMATIC = "as the prompt says"
LONGEST_PROMPT = 20_000
LONGEST_NEGATIVE = 1_000
LIMITS = {
    "seed": (0, 2**32 - 1),
    "images": (1, 4),
    "rounds": (1, 6),
    "candidates": (1, 8),
    "steps": (2, 100),
    "guidance": (1, 15),
}
INVITATION = (
    "Say what to draw, in a radiologist's words: findings, side, severity, then the modality."
)
CANCELLED = "Cancelled. What was done is kept among the runs, as unfinished."
NOT_DRAWN = "Cancelled: it was still waiting, and will not be drawn."
Shown = tuple[str, str, str]
cancellations = Cancellations()


def generate_tab(modalities: list[str]) -> None:
    """Lay the tab out and wire it.

    Args:
        modalities: Names to choose from.
    """
    with gr.Row(elem_classes="halves"):
        with gr.Column(scale=2, min_width=320):
            prompt = gr.Textbox(
                label="What to draw",
                placeholder="cardiomegaly, chest X-ray",
                lines=3,
                max_length=LONGEST_PROMPT,
                elem_id="prompt",
                autofocus=True,
            )
            modality = gr.Dropdown(
                [AUTOMATIC, *modalities], value=AUTOMATIC, label="Modality", filterable=False
            )
            with gr.Row():
                draw = gr.Button("Draw", variant="primary", elem_id="draw")
                cancel = gr.Button("Cancel", elem_id="cancel")
            advanced = _advanced_settings()
        with gr.Column(scale=5, min_width=480):
            status = gr.HTML(_status("quiet", INVITATION), elem_id="status")
            progress = gr.HTML("", elem_id="progress")
            outcome = gr.HTML("", elem_id="outcome")
    at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    gr.on([draw.click, prompt.submit], begin, **at_once).then(
        draw_run,
        [prompt, modality, *advanced],
        [status, progress, outcome],
        api_name="draw",
        show_progress="minimal",
        show_progress_on=status,
        concurrency_limit=1,
        concurrency_id=DRAWING_QUEUE,
    )
    cancel.click(cancel_drawing, outputs=status, **at_once)


def _advanced_settings() -> list[Component]:
    """The controls that are folded away, in the order in which `draw_run` takes their values."""
    usual = settings()

    def slider(name: str, label: str, value: float, step: float = 1) -> gr.Slider:
        low, high = LIMITS[name]
        return gr.Slider(low, high, value=min(value, high), step=step, label=label)

    with gr.Accordion("Advanced settings", open=False):
        return [
            gr.Number(0, label="Seed", info="Same seed, same image.", precision=0),
            slider("images", "Images", 1),
            slider("rounds", "Rounds", usual.rounds),
            slider("candidates", "Candidates a round", usual.candidates),
            slider("steps", "Sampling steps", usual.steps),
            slider("guidance", "Guidance scale", usual.guidance_scale, step=0.1),
            gr.Textbox(
                label="What not to draw",
                info="In place of what medgen would say.",
                max_length=LONGEST_NEGATIVE,
            ),
        ]


async def draw_run(
    prompt: str,
    modality: str,
    seed: float,
    images: float,
    rounds: float,
    candidates: float,
    steps: float,
    guidance: float,
    negative: str,
    request: gr.Request,
) -> AsyncIterator[Shown]:
    """Draw a request and yield the status, the steps so far and the outcome, as HTML."""

    def work(tell: Tell) -> RunResult:
        import medgen

        return medgen.Agent().run(
            _text("the prompt", prompt, LONGEST_PROMPT),
            modality=None if modality == AUTOMATIC else modality,
            seed=int(_within("seed", seed)),
            images=int(_within("images", images)),
            rounds=int(_within("rounds", rounds)),
            candidates=int(_within("candidates", candidates)),
            steps=int(_within("steps", steps)),
            guidance=_within("guidance", guidance),
            negative=_text("what not to draw", negative, LONGEST_NEGATIVE).strip() or None,
            on_start=tell,
            on_event=tell,
        )

    async for shown in watch(work, session_of(request)):
        yield shown


def session_of(request: gr.Request) -> str:
    """The key of the browser's session that a request comes from."""
    return request.session_hash or ""


async def watch(work: Callable[[Tell], RunResult], session: str) -> AsyncIterator[Shown]:
    """Yield the status, the steps and the outcome of a session's run, as HTML, while it goes on."""
    story = Story()
    cancellations.start(session)
    yield _status("busy", "Loading the models (once after the studio starts)."), "", ""
    try:
        async for thing in steps_of(work, lambda: cancellations.asked(session)):
            if isinstance(thing, str):
                story.tell(thing)
                yield _status("busy", f"{story.doing} …"), _steps(story), ""
            elif isinstance(thing, TraceEvent):
                story.tell(thing)
                yield gr.skip(), _steps(story), gr.skip()
            else:
                done = f"Done: run {thing.run_id}, {thing.seconds:.0f} s."
                yield _status("done", done), _steps(story, open_=False), run_html(thing.folder)
    except Cancelled:
        yield _status("quiet", CANCELLED), _steps(story), ""
    except MedgenError as error:
        said = str(error)[:1].upper() + str(error)[1:]
        yield _status("error", said), _steps(story) if story.events else "", ""
    finally:
        cancellations.end(session)


def begin(request: gr.Request) -> None:
    """A drawing is asked for."""
    cancellations.wait(session_of(request))


def cancel_drawing(request: gr.Request) -> Any:
    """Stop the session's drawing; one under way says so itself, one that waits is told of here."""
    waits = cancellations.ask(session_of(request))
    return _status("quiet", NOT_DRAWN) if waits else gr.skip()


def _status(kind: str, text: str) -> str:
    return page("status.html.j2", kind=kind, text=text)


def _steps(story: Story, open_: bool = True) -> str:
    return page("steps.html.j2", story=story, doing=DOING, open=open_)


def _within(name: str, value: float | None) -> float:
    low, high = LIMITS[name]
    if value is None or not low <= value <= high:
        raise BadInput(f"{name} is {value}: give {low} to {high}")
    return value


def _text(name: str, value: str | None, longest: int) -> str:
    if len(value or "") > longest:
        raise BadInput(f"{name} has {len(value or '')} characters: give {longest} at most")
    return value or ""

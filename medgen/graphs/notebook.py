"""What a notebook shows of a run or a drawing: pictures, verdicts and measured numbers as HTML.

The fragment loads nothing: pictures are data URIs, styles inline (notebooks strip sheets), colours
legible on a light and a dark page. Every text is escaped by the template engine, for prompts may
hold HTML. Decides nothing.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from medgen.data.images import SYNTHETIC_NOTICE
from medgen.graphs.outcome import expected_range, phrase
from medgen.graphs.trace_html import thumbnail

if TYPE_CHECKING:
    from jinja2 import Template

    from medgen.graphs.results import DrawingResult, RunResult


@lru_cache
def _template(name: str) -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        phrase=phrase,
        expected=expected_range,
        thumbnail=thumbnail,
        words=lambda text: text.replace("_", " "),
    )
    source = resources.files("medgen.graphs") / "templates" / name
    return environment.from_string(source.read_text(encoding="utf-8"))


def run_html(run: RunResult) -> str:
    """A finished run: each image beside its control, with what was measured in it."""
    return _template("notebook_run.html.j2").render(
        run=run, prompt=run.request.prompt, notice=SYNTHETIC_NOTICE
    )


def drawing_html(drawing: DrawingResult) -> str:
    """A drawing: its images, and that nothing verified them."""
    return _template("notebook_drawing.html.j2").render(drawing=drawing, notice=SYNTHETIC_NOTICE)

"""The studio's HTML: one template engine that escapes every text, and the words that pages use.

Prompts, comments and file names come from people and may hold HTML; nothing reaches a page but
through a template of this room. Decides nothing.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from medgen.data.images import SYNTHETIC_NOTICE
from medgen.graphs.outcome import expected_range, phrase

VERDICTS = {
    "confirmed": "shown as asked",
    "contradicted": "not as asked",
    "abstain": "could not be judged",
    None: "not measured",
}
OUTCOMES = {
    True: "accepted",
    False: "not accepted",
    None: "not accepted: nothing could be measured",
}


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medgen.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(notice=SYNTHETIC_NOTICE, verdicts=VERDICTS, outcomes=OUTCOMES)
    environment.filters.update(
        phrase=phrase,
        expected=expected_range,
        number=lambda value: f"{value:.3g}",
        words=lambda name: name.replace("_", " "),
    )
    return environment


def page(name: str, /, **told: object) -> str:
    """A template of this room, filled in; every text in it is escaped."""
    return _environment().get_template(name).render(**told)


def asset(name: str) -> str:
    """A style sheet or script of the studio, as text."""
    return (resources.files("medgen.studio") / "assets" / name).read_text(encoding="utf-8")

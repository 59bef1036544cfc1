"""The trace as one self-contained page: plan, facts, each round's candidates, why each decision.

The page loads nothing from anywhere: thumbnails are data URIs, styles are inline, there is no
script. Every text is escaped by the template engine, for prompts may hold HTML. Reads the state;
decides nothing.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from medgen.agents.state import AgentState, Choice, Trial, candidates_of
from medgen.data.images import SYNTHETIC_NOTICE, load_image, write_atomic
from medgen.errors import BadInput
from medgen.graphs.checkpoints import read_state
from medgen.graphs.outcome import conclude, expected_range, phrase
from medgen.graphs.run_folder import RUN, TRACE_PAGE, RunFolder
from medgen.records import Candidate, Fact, Measurement, Plan, Request, Run, TraceEvent

THUMBNAIL = 224
QUALITY = 82

Difference = list[tuple[str, str]]


@dataclass(frozen=True)
class Round:
    """One round of one image: what was drawn, what the actions did, what was decided."""

    number: int
    candidates: list[Candidate]
    trials: list[Trial]
    choice: Choice | None


@dataclass(frozen=True)
class ImageStory:
    """All rounds of one of the images asked for, with the chosen candidate and the control."""

    index: int
    choice: Choice
    best: Candidate
    control: Candidate
    rounds: list[Round]


@dataclass(frozen=True)
class Gauge:
    """Where a value lies beside its expected range: percent of the drawn scale."""

    left: float
    width: float
    value: float


def prompt_difference(before: str, after: str) -> Difference:
    """What to leave out of and put into one prompt to get another, word by word.

    Returns:
        Pieces in order, each "same", "out" or "in" with its text.
    """
    old, new = re.findall(r"\S+\s*", before), re.findall(r"\S+\s*", after)
    pieces: Difference = []
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(("same", "".join(new[new_from:new_to])))
            continue
        if old_to > old_from:
            pieces.append(("out", "".join(old[old_from:old_to])))
        if new_to > new_from:
            pieces.append(("in", "".join(new[new_from:new_to])))
    return pieces


def gauge(measurement: Measurement) -> Gauge | None:
    """The scale of a measurement's little bar, or None where no range was expected."""
    if measurement.expected is None:
        return None
    ends = [end for end in measurement.expected if end is not None]
    if not ends:
        return None
    low, high = measurement.expected
    points = [*ends, measurement.value]
    margin = (max(points) - min(points)) * 0.25 or abs(measurement.value) * 0.25 or 1.0
    start, stop = min(points) - margin, max(points) + margin

    def percent(value: float) -> float:
        return round(100 * (value - start) / (stop - start), 1)

    left = 0.0 if low is None else percent(low)
    right = 100.0 if high is None else percent(high)
    return Gauge(left, round(right - left, 1), percent(measurement.value))


def thumbnail(path: str) -> str:
    """An image as a small JPEG data URI; an empty grey one if the file is gone."""
    try:
        image = load_image(path)
    except BadInput:
        image = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (128, 128, 128))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _stories(state: AgentState, events: list[TraceEvent]) -> list[ImageStory]:
    decided: dict[tuple[int, int], Choice] = {}
    for event in events:
        if event.node == "select" and event.round is not None:
            for dumped in _list(event.outputs.get("choices")):
                choice = Choice.model_validate(dumped)
                decided[choice.index, event.round] = choice
    trials = [Trial.model_validate(dumped) for dumped in state.get("trials", [])]
    stories = []
    for choice in [Choice.model_validate(dumped) for dumped in state["choices"]]:
        own = candidates_of(state, choice.index)
        rounds = [
            Round(
                number,
                drawn := [one for one in own if one.round == number],
                [trial for trial in trials if trial.candidate in {one.id for one in drawn}],
                decided.get((choice.index, number)),
            )
            for number in sorted({one.round for one in own})
        ]
        best = next(one for one in own if one.id == choice.best)
        control = next(one for one in own if one.control)
        stories.append(ImageStory(choice.index, choice, best, control, rounds))
    return stories


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _differences(stories: list[ImageStory]) -> dict[str, Difference]:
    found = {}
    for story in stories:
        by_id = {one.id: one for round_ in story.rounds for one in round_.candidates}
        for candidate in by_id.values():
            if candidate.control:
                continue
            earlier = by_id[candidate.parent] if candidate.parent else story.control
            found[candidate.id] = prompt_difference(
                earlier.conditioning.prompt, candidate.conditioning.prompt
            )
    return found


@lru_cache
def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        phrase=phrase,
        expected=expected_range,
        gauge=gauge,
        words=lambda name: name.replace("_", " "),
        number=lambda value: f"{value:.3g}",
        pretty=lambda value: json.dumps(value, ensure_ascii=False, indent=1),
    )
    return environment


def write_page(folder: RunFolder) -> Path:
    """Write the page of a finished run anew, from its checkpoints, and say where it is.

    Raises:
        BadInput: The run is not finished or cannot be read.
    """
    state = read_state(folder)
    if not (folder.path / RUN).is_file():
        raise BadInput(
            f"run {folder.run_id} is not finished: medgen agent --resume {folder.run_id}, or show "
            "it without --html"
        )
    return write_atomic(folder.path / TRACE_PAGE, trace_page(state, conclude(state)))


def trace_page(state: AgentState, run: Run) -> str:
    """The page of a run whose every image is settled, as HTML text."""
    events = [TraceEvent.model_validate(event) for event in state["events"]]
    stories = _stories(state, events)
    source = resources.files("medgen.graphs") / "templates" / "trace.html.j2"
    template = _environment().from_string(source.read_text(encoding="utf-8"))
    folder = RunFolder.open(Path(state["folder"]))
    return template.render(
        notice=SYNTHETIC_NOTICE,
        run=run,
        folder=folder.path.name,
        lineage=folder.lineage,
        setup=folder.setup,
        fingerprints={name: state.get(name, "") for name in ("knowledge", "panel")},
        longest=max((event.seconds for event in events), default=0) or 1,
        request=Request.model_validate(state["request"]),
        plan=Plan.model_validate(state["plan"]),
        facts=[Fact.model_validate(fact) for fact in state["facts"]],
        generator=state["generator"],
        stories=stories,
        differences=_differences(stories),
        thumbnails={one.id: thumbnail(one.image) for one in candidates_of(state)},
        events=events,
    )

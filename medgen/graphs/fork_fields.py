"""What a fork may change, at which node, and what a text given for it means.

A field can be set only where a node that is still to run reads it, and is checked by the record
that it belongs to. Knows states and records; nothing of checkpoints and folders.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from medgen.agents.selector import critique_of
from medgen.agents.state import AgentState, Choice, Dumped, candidates_of
from medgen.errors import BadInput
from medgen.generator.structured import CATEGORIES, NUMBERS
from medgen.knowledge.cards import finding_cards
from medgen.records import Candidate, Conditioning, Plan, Record, Request

NODES = (
    "parse",
    "localize_anatomy",
    "assess_pathology",
    "retrieve",
    "map_features",
    "write_report",
    "compose",
    "generate",
    "verify",
    "select",
    "refine",
    "record",
)
REASONING = NODES[:7]

REQUEST_AT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("prompt", "modality", "reading"), ("parse",)),
    **dict.fromkeys(("images", "steps", "guidance", "negative"), REASONING),
    **dict.fromkeys(("seed", "candidates"), (*REASONING, "refine")),
    **dict.fromkeys(("rounds", "seconds"), NODES[:-1]),
}
"""Fields of the request, and the nodes from which on something reads them."""

COMPOSED = {
    "prompt": "prompt",
    "negative": "negative_prompt",
    "guidance": "guidance_scale",
    "steps": "steps",
    **{f"structured.{name}": f"structured.{name}" for name in (*NUMBERS, *CATEGORIES)},
}
"""What the generator is told, by the name to set and by its name in `Conditioning`."""
COMPOSED_AT = ("generate", "refine")
TOLD_TO_ALL = ("negative_prompt", "guidance_scale", "steps")  # the control too

PLAN_AFTER = {
    **dict.fromkeys(("findings", "view", "age_group", "sex"), "parse"),
    "regions": "localize_anatomy",
    "measurements": "assess_pathology",
    "signs": "map_features",
    "report": "write_report",
}
"""Fields of the plan, and the node that writes them: they can be set after it, until compose."""

BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "images": (1, 64),
    "rounds": (1, 20),
    "candidates": (1, 64),
    "seconds": (0.001, 1e6),
    "steps": (2, 1000),
    "guidance": (1, 30),
    "guidance_scale": (1, 30),
    "structured.cardiothoracic_ratio": (0.3, 0.8),
    "structured.opacity_right": (0, 1),
    "structured.opacity_left": (0, 1),
}
RECORDS: dict[str, type[Record]] = {"request": Request, "plan": Plan, "composed": Conditioning}


def settable(node: str) -> dict[str, tuple[str, str]]:
    """What can be set at a node: each name with its record ("request" ...) and field.

    Raises:
        BadInput: There is no such node.
    """
    if node not in NODES:
        raise BadInput(f"there is no node {node!r}: fork at one of {', '.join(NODES)}")
    names = {name: ("request", name) for name, nodes in REQUEST_AT.items() if node in nodes}
    if node in COMPOSED_AT:
        names |= {name: ("composed", field) for name, field in COMPOSED.items()}
    if node in REASONING:
        earlier = NODES[: NODES.index(node)]
        names |= {name: ("plan", name) for name, writer in PLAN_AFTER.items() if writer in earlier}
    if node == "record":
        names["best"] = ("choices", "best")
    return names


def changed(
    state: AgentState, node: str, changes: Mapping[str, object]
) -> tuple[AgentState, dict[str, object]]:
    """A state with fields set, as it is before a node.

    Args:
        state: Of the run, before `node`.
        node: The node that will run next.
        changes: Values by name, as in `settable`; parts of a list by number or name
            (`findings.0.side`, `findings.cardiomegaly.side`). A text is read as the field's type;
            "none" takes a value away, and what begins as JSON is read as JSON.

    Returns:
        The new state, and the values set by their full names ("request.seed").

    Raises:
        BadInput: A field that cannot be set there, or a value that it cannot have.
    """
    state = copy.deepcopy(state)
    named: dict[str, object] = {}
    for name, given in changes.items():
        value = _value(given)
        record, field = _place(name, node)
        if record == "choices":
            state["choices"] = _choose(state, field, str(given))
        else:
            _set(state, record, field, name, value)
            if record == "composed" and node == "generate":
                _tell(state, field, value)
        named[f"{record}.{field}"] = value
    return state, named


def _value(given: object) -> object:
    if not isinstance(given, str):
        return given
    if given.strip().lower() in ("none", "null"):
        return None
    if given.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(given)
        except ValueError as error:
            raise BadInput(f"{given[:60]!r} is no JSON ({error}): correct it") from error
    return given


def _place(name: str, node: str) -> tuple[str, str]:
    found = _found(name, node)
    if found is not None:
        return found
    elsewhere = [other for other in NODES if _found(name, other)]
    hint = f" (it can at {', '.join(elsewhere)})" if elsewhere else ""
    raise BadInput(f"{name!r} cannot be set at {node}{hint}: set {', '.join(settable(node))}")


def _found(name: str, node: str) -> tuple[str, str] | None:
    """The record and field that a name means at a node; None where nothing is called so."""
    asked, _, short = name.partition(".")
    if asked not in (*RECORDS, "choices"):
        asked, short = "", name
    head, dot, rest = short.partition(".")
    for known, (record, field) in settable(node).items():
        if asked in ("", record):
            if short == known:
                return record, field
            if dot and head == known and record in ("plan", "choices"):
                return record, f"{field}.{rest}"
    return None


def _set(state: AgentState, record: str, field: str, name: str, value: object) -> None:
    dumped: Dumped = state[record]  # type: ignore[literal-required]
    if field.startswith("structured."):
        value = _condition(field, value)
    _put(dumped, field, value, name)
    try:
        checked = RECORDS[record].model_validate(dumped)
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise BadInput(f"{name}={value} cannot be used ({fault}): correct it") from error
    dumped = checked.model_dump(mode="json")
    if field in BOUNDS and record != "plan":
        _bounded(name, dumped.get(field, value), *BOUNDS[field])
    if isinstance(checked, Plan):
        _known_findings(checked)
    state[record] = dumped  # type: ignore[literal-required]


def _bounded(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, int | float) and not low <= value <= high:
        raise BadInput(f"{name}={value:g} is out of range: give {low:g} to {high:g}")


def _known_findings(plan: Plan) -> None:
    known = finding_cards().get(plan.modality, {})
    for finding in plan.findings:
        if finding.finding not in known:
            raise BadInput(
                f"finding {finding.finding!r} is not known in {plan.modality}: use one of "
                f"{', '.join(list(known)[:12])} ..."
            )


def _condition(field: str, value: object) -> object:
    name = field.removeprefix("structured.")
    if value is None:
        return None
    if name in NUMBERS:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise BadInput(f"{field}={value} is no number: give one") from error
        low, high = BOUNDS[field]
        if not low <= number <= high:
            raise BadInput(f"{field}={value} is out of range: give {low:g} to {high:g}")
        return number
    if value not in CATEGORIES[name]:
        raise BadInput(f"{field}={value} is unknown: use one of {', '.join(CATEGORIES[name])}")
    return value


def _put(dumped: Any, field: str, value: object, name: str) -> None:
    """Set a field of nested dicts and lists; a None takes an entry of `structured` out."""
    *parents, last = field.split(".")
    place = dumped
    for part in parents:
        place = _part(place, part, name)
    if parents == ["structured"] and value is None:
        place.pop(last, None)
    elif isinstance(place, list):
        place[place.index(_part(place, last, name))] = value
    else:
        place[last] = value


def _part(place: Any, part: str, name: str) -> Any:
    if isinstance(place, dict) and part in place:
        return place[part]
    if isinstance(place, list):
        if part.isdecimal() and int(part) < len(place):
            return place[int(part)]
        for entry in place:
            if isinstance(entry, dict) and part in (entry.get("finding"), entry.get("name")):
                return entry
    raise BadInput(f"{name}: there is no {part!r}: see `medgen trace show --json`")


def _tell(state: AgentState, field: str, value: object) -> None:
    """Tell the candidates that are about to be drawn what the composed conditioning now says."""
    candidates = candidates_of(state)
    for candidate in candidates:
        if candidate.round != state["round"]:
            continue
        if candidate.control and field not in TOLD_TO_ALL:
            continue
        told = candidate.conditioning.model_dump(mode="json")
        _put(told, field, _condition(field, value) if "." in field else value, field)
        candidate.conditioning = Conditioning.model_validate(told)
    state["candidates"] = [one.model_dump(mode="json") for one in candidates]


def _choose(state: AgentState, field: str, best: str) -> list[Dumped]:
    """The choices with another candidate as the result of one image, chosen by hand."""
    index = field.removeprefix("best").removeprefix(".") or "0"
    choices = [Choice.model_validate(dumped) for dumped in state["choices"]]
    if not index.isdecimal() or int(index) >= len(choices):
        raise BadInput(f"there is no image {index}: this run has {len(choices)}")
    own: dict[str, Candidate] = {one.id: one for one in candidates_of(state, int(index))}
    if best not in own:
        raise BadInput(f"{best!r} is no candidate of image {index}: choose {', '.join(own)}")
    critique = critique_of(own[best])
    accepted = critique.accepted is True and not critique.rejections
    choices[int(index)] = Choice(
        index=int(index),
        best=best,
        decision="accept" if accepted else "give up",
        why="chosen by hand",
    )
    return [choice.model_dump(mode="json") for choice in choices]

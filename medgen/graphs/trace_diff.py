"""What differs between two runs, part by part: how they were set up, thought, drawn and judged.

Reads two traces; decides nothing about which is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Literal

from medgen.graphs.runs import Trace
from medgen.records import Candidate, Record

Part = Literal[
    "request", "settings", "plan", "facts", "prompts", "measurements", "verdicts", "result"
]
Flat = dict[str, object]


class Difference(Record):
    """One value that differs; null on the side where there is none."""

    part: Part
    name: str
    a: object = None
    b: object = None


class NodeSeconds(Record):
    """How long a node took in two runs, over all its rounds."""

    node: str
    a: float
    b: float


class TraceDiff(Record):
    """All that differs between runs `a` and `b`; times always do and are not counted."""

    a: str
    b: str
    same: bool
    differences: list[Difference]
    seconds: list[NodeSeconds]


def diff(a: Trace, b: Trace) -> TraceDiff:
    """Compare two runs.

    Candidates are compared by their names: the same round and number, whatever became of them.
    """
    sides = [dict(_parts(trace)) for trace in (a, b)]
    differences = [
        Difference(part=part, name=name, a=sides[0][part].get(name), b=sides[1][part].get(name))
        for part in sides[0]
        for name in dict.fromkeys(chain(sides[0][part], sides[1][part]))
        if sides[0][part].get(name) != sides[1][part].get(name)
    ]
    return TraceDiff(
        a=a.summary.run_id,
        b=b.summary.run_id,
        same=not differences,
        differences=differences,
        seconds=_seconds(a, b),
    )


def _parts(trace: Trace) -> Iterator[tuple[Part, Flat]]:
    dumped = trace.model_dump(mode="json")
    yield "request", _flat(dumped["request"])
    yield "settings", _flat({"generator name": trace.generator, **dumped["setup"]})
    plan = dict(dumped["plan"] or {})
    plan.pop("prompt", None)
    yield "plan", _flat(plan)
    yield "facts", {fact.id: fact.score for fact in trace.facts}
    yield "prompts", _merged(_told(one) for one in trace.candidates)
    yield "measurements", _merged(_measured(one) for one in trace.candidates)
    yield "verdicts", _merged(_judged(one) for one in trace.candidates)
    yield (
        "result",
        _merged(
            {f"image {choice.index} {name}": getattr(choice, name)}
            for choice in trace.choices
            for name in ("best", "decision", "why")
        ),
    )


def _flat(value: Any, name: str = "") -> Flat:
    """Nested dicts and lists as one dict of dotted names; entries of lists by their own names."""
    if isinstance(value, dict):
        return _merged(_flat(one, f"{name}.{key}" if name else key) for key, one in value.items())
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return _merged(
            _flat(one, f"{name}.{_name_of(one, place)}") for place, one in enumerate(value)
        )
    return {name: value}


def _name_of(entry: Any, place: int) -> str:
    if not isinstance(entry, dict):
        return str(place)
    names = [str(entry[key]) for key in ("finding", "name") if entry.get(key)]
    return " ".join(names) or str(place)


def _merged(flats: Any) -> Flat:
    return {name: value for flat in flats for name, value in flat.items()}


def _told(candidate: Candidate) -> Flat:
    told = candidate.conditioning.model_dump(mode="json")
    for name in ("init_image", "mask_image"):  # by name: the folders differ
        told[name] = told[name] and told[name].rpartition("/")[2]
    return {
        **_flat(told, candidate.id),
        f"{candidate.id}.parent": candidate.parent,
        f"{candidate.id}.actions": candidate.actions,
    }


def _measured(candidate: Candidate) -> Flat:
    critique = candidate.critique
    if critique is None:
        return {}
    found: Flat = {
        f"{candidate.id} {finding.finding}: {one.name}": one.value
        for finding in critique.findings
        for one in finding.measurements
    }
    if critique.quality is not None:
        found[f"{candidate.id} quality"] = critique.quality.score
    if critique.alignment is not None:
        found[f"{candidate.id} {critique.alignment.name}"] = critique.alignment.value
    if critique.nearest_training is not None:
        found[f"{candidate.id} distance to training"] = critique.nearest_training.distance
    return found


def _judged(candidate: Candidate) -> Flat:
    critique = candidate.critique
    if critique is None:
        return {}
    verdicts = {f"{candidate.id} {one.finding}": one.verdict for one in critique.findings}
    return {
        **verdicts,
        f"{candidate.id} accepted": critique.accepted,
        f"{candidate.id} score": critique.score,
        f"{candidate.id} rejections": critique.rejections,
    }


def _seconds(a: Trace, b: Trace) -> list[NodeSeconds]:
    totals: dict[str, list[float]] = {}
    for side, trace in enumerate((a, b)):
        for event in trace.events:
            totals.setdefault(event.node, [0.0, 0.0])[side] += event.seconds
    return [
        NodeSeconds(node=node, a=round(first, 3), b=round(second, 3))
        for node, (first, second) in totals.items()
    ]

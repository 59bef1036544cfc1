"""What a page tells of a run while it goes on: steps done, the step going on, images so far.

Collects what the agent's callbacks say. Knows records and words; knows no threads and no Gradio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgen.records import TraceEvent

DOING = {
    "parse": "Reading the request",
    "localize_anatomy": "Finding the anatomy",
    "assess_pathology": "Assessing the findings",
    "retrieve": "Looking facts up",
    "map_features": "Mapping findings to signs",
    "write_report": "Writing the report",
    "compose": "Composing the prompt",
    "generate": "Drawing",
    "verify": "Measuring",
    "select": "Choosing",
    "refine": "Refining",
    "record": "Writing the files",
}


@dataclass
class Sketch:
    """One image drawn so far, and what the verifier said of it once it did."""

    folder: str
    name: str
    round: int
    accepted: bool | None = None
    score: float | None = None
    corrections: list[str] = field(default_factory=list)


@dataclass
class Story:
    """A run as far as it has come."""

    doing: str | None = None
    events: list[TraceEvent] = field(default_factory=list)
    sketches: dict[str, Sketch] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def tell(self, thing: str | TraceEvent) -> None:
        """Take a node's name as it starts, or its event as it ends."""
        if isinstance(thing, str):
            self.doing = DOING.get(thing, thing)
            return
        self.doing = None
        self.events.append(thing)
        outputs: Any = thing.outputs
        self.warnings += [one for one in outputs.get("warnings", []) if one not in self.warnings]
        if thing.node == "generate":
            for image in map(Path, outputs["images"]):
                drawn = Sketch(image.parents[1].name, image.stem, thing.round or 1)
                self.sketches[image.stem] = drawn
        elif thing.node == "verify":
            for name, said in outputs.items():
                sketch = self.sketches.get(name)
                if sketch is None:  # a fork measures what its parent drew
                    continue
                sketch.accepted, sketch.score = said["accepted"], said["score"]
                sketch.corrections = said["corrections"]

"""Draws docs/images/state_machine.svg from the agent's graph: its nodes, its edges, nothing else.

    python docs/state_machine.py

The words in a box are the first sentence of the node's docstring. Edges that a decision chooses
between are dashed; an edge to an earlier node goes back along the right side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any, cast
from xml.sax.saxutils import escape, quoteattr

PICTURE = Path(__file__).parent / "images" / "state_machine.svg"
WIDTH, HEIGHT, GAP, MARGIN = 350, 56, 26, 20
LETTERS = 58
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
font-family="system-ui, sans-serif" text-anchor="middle">
<title>The states of an agent run</title>
<style>
rect {{ fill: #eef2fb; stroke: #3f51b5; }} .name {{ font-size: 14px; font-weight: 600; }}
.does {{ font-size: 11px; fill: #444; }} path {{ fill: none; stroke: #555; stroke-width: 1.5; }}
.chosen {{ stroke-dasharray: 6 4; }} .page {{ fill: #fff; stroke: none; }}
</style>
<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 10 5 0 10z" style="fill: #555; stroke: none"/></marker></defs>
<rect class="page" width="{width}" height="{height}" rx="8"/>"""


@dataclass(frozen=True)
class Box:
    """Where a node is drawn: the middle of its upper edge."""

    x: float
    y: float

    @property
    def middle(self) -> float:
        """Height of its middle."""
        return self.y + HEIGHT / 2


def agent_graph() -> Any:
    """The agent's graph as LangGraph tells it; nothing is loaded, for nothing is run."""
    from medgen.graphs.agent import build

    return build(cast(Any, None), None).get_graph()


def first_sentence(name: str) -> str:
    """What a node does; empty for the graph's start and end."""
    from medgen.graphs import nodes

    return " ".join((getattr(nodes, name, None).__doc__ or "").split()).split(". ")[0].rstrip(".")


def places(graph: Any) -> dict[str, Box]:
    """A row for each step from the start; beside each other what a decision chooses between."""
    order = list(graph.nodes)
    ahead = [edge for edge in graph.edges if order.index(edge.source) < order.index(edge.target)]
    returning = {edge.source for edge in graph.edges if edge not in ahead}
    row = dict.fromkeys(order, 0)
    for name in order:
        for edge in ahead:
            if edge.source == name:
                row[edge.target] = max(row[edge.target], row[name] + 1)
    boxes = {}
    for number in sorted(set(row.values())):
        abreast = sorted(
            (name for name in order if row[name] == number), key=returning.__contains__
        )
        for column, name in enumerate(abreast):
            x = MARGIN + WIDTH / 2 + column * (WIDTH + GAP)
            boxes[name] = Box(x, MARGIN + number * (HEIGHT + GAP))
    return boxes


def route(source: Box, target: Box, right: float) -> str:
    """The line of an edge: down, aside and down, or back up along the right side."""
    if target.y < source.y:
        start, end = source.x + WIDTH / 2, target.x + WIDTH / 2
        return f"M{start:g} {source.middle:g}H{right:g}V{target.middle:g}H{end + 1:g}"
    if target.x != source.x:
        return f"M{source.x + WIDTH / 2:g} {source.middle:g}H{target.x:g}V{target.y - 1:g}"
    return f"M{source.x:g} {source.y + HEIGHT:g}V{target.y - 1:g}"


def draw(graph: Any) -> str:
    """The picture as SVG; nodes and edges carry their names, so that a test can read them."""
    boxes = places(graph)
    right = max(box.x for box in boxes.values()) + WIDTH / 2 + GAP
    height = max(box.y for box in boxes.values()) + HEIGHT + MARGIN
    lines = [HEAD.format(width=f"{right + MARGIN:g}", height=f"{height:g}")]
    for edge in sorted(graph.edges, key=lambda edge: (edge.source, edge.target)):
        chosen = ' class="chosen"' if edge.conditional else ""
        path = route(boxes[edge.source], boxes[edge.target], right)
        names = f"data-from={quoteattr(edge.source)} data-to={quoteattr(edge.target)}"
        lines.append(f'<path{chosen} {names} d="{path}" marker-end="url(#arrow)"/>')
    for name, box in boxes.items():
        does = wrap(first_sentence(name), LETTERS)
        corner = f'x="{box.x - WIDTH / 2:g}" y="{box.y:g}" width="{WIDTH}" height="{HEIGHT}"'
        lines.append(f'<g data-node={quoteattr(name)}><rect {corner} rx="8"/>')
        top = box.middle + 5 - 7 * len(does)
        lines.append(
            f'<text class="name" x="{box.x:g}" y="{top:g}">{escape(name.strip("_"))}</text>'
        )
        for number, line in enumerate(does, start=1):
            at = f'x="{box.x:g}" y="{top + 1 + 14 * number:g}"'
            lines.append(f'<text class="does" {at}>{escape(line)}</text>')
        lines.append("</g>")
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(agent_graph()), encoding="utf-8")

"""The picture of the state machine is the graph's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "state_machine.py"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("state_machine", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def graph(drawing: ModuleType) -> Any:
    return drawing.agent_graph()


def shown(svg: str) -> tuple[set[str], set[tuple[str, str, bool]]]:
    elements = list(ElementTree.fromstring(svg).iter())
    nodes = {one.attrib["data-node"] for one in elements if "data-node" in one.attrib}
    edges = {
        (one.attrib["data-from"], one.attrib["data-to"], one.get("class") == "chosen")
        for one in elements
        if "data-from" in one.attrib
    }
    return nodes, edges


def test_committed_picture_has_the_graphs_nodes_and_edges(drawing: ModuleType, graph: Any) -> None:
    nodes, edges = shown(drawing.PICTURE.read_text(encoding="utf-8"))
    assert nodes == set(graph.nodes)
    assert edges == {(edge.source, edge.target, edge.conditional) for edge in graph.edges}


def test_committed_picture_is_what_the_script_draws_today(drawing: ModuleType, graph: Any) -> None:
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.draw(graph), (
        "run: python docs/state_machine.py"
    )


def test_a_node_more_in_the_graph_is_a_box_more(drawing: ModuleType) -> None:
    from langgraph.graph import END, START, StateGraph

    from medgen.agents.state import AgentState

    wider = StateGraph(AgentState)
    for name in ("parse", "compose", "record"):
        wider.add_node(name, lambda state: {})
    wider.add_edge(START, "parse")
    wider.add_edge("parse", "compose")
    wider.add_conditional_edges("compose", lambda state: "record", ["record", "parse"])
    wider.add_edge("record", END)
    nodes, edges = shown(drawing.draw(wider.compile().get_graph()))
    assert nodes == {"__start__", "parse", "compose", "record", "__end__"}
    assert ("compose", "parse", True) in edges and ("parse", "compose", False) in edges
    assert len(edges) == 5


def test_no_two_boxes_overlap(drawing: ModuleType, graph: Any) -> None:
    boxes = list(drawing.places(graph).values())
    for number, one in enumerate(boxes):
        for other in boxes[:number]:
            apart = abs(one.x - other.x) >= drawing.WIDTH or abs(one.y - other.y) >= drawing.HEIGHT
            assert apart, (one, other)

"""Forks go on from every node, act by their changes alone, and leave the parent as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantom import phantom_collaborators

from medgen.errors import BadInput
from medgen.graphs.agent import Agent
from medgen.graphs.fork_fields import NODES, settable
from medgen.graphs.forking import fork
from medgen.graphs.run_folder import RunFolder
from medgen.graphs.runs import load_run
from medgen.settings import settings

PROMPT = "cardiomegaly, chest X-ray"


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for runs, for all tests of this module."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGEN_RUNS", str(folder))
        settings.cache_clear()
        yield folder
    settings.cache_clear()


@pytest.fixture(scope="module")
def phantom(forks: Path) -> Agent:
    return Agent(phantom_collaborators())


@pytest.fixture(scope="module")
def parent(phantom: Agent) -> RunFolder:
    """A run of several rounds, the last accepted."""
    run = phantom.run(PROMPT, seed=3, rounds=4)
    assert run.rounds > 1 and run.accepted
    return RunFolder.open(run.folder)


@pytest.mark.parametrize("node", NODES)
def test_a_fork_without_a_change_draws_the_same_from_every_node(
    parent: RunFolder, phantom: Agent, node: str
) -> None:
    before = contents(parent.path)
    run = fork(parent, node, agent=phantom)
    assert contents(parent.path) == before
    assert run.run_id != parent.run_id and run.folder != parent.path
    ours, theirs = contents(run.folder), contents(parent.path)
    drawn = {name for name in theirs if name.endswith(".png")}
    assert drawn == {name for name in ours if name.endswith(".png")}
    assert {name for name in drawn if ours[name] != theirs[name]} == set()
    trace = load_run(run.folder)
    assert trace.summary.lineage is not None
    assert (trace.summary.lineage.parent, trace.summary.lineage.node) == (parent.run_id, node)
    steps = [event.node for event in trace.events]
    assert steps == [event.node for event in load_run(parent).events]
    assert steps[trace.summary.lineage.events] == node
    assert all(Path(one.image).is_relative_to(run.folder) for one in trace.candidates)


CHANGES = {
    "parse": ("prompt", "severe cardiomegaly, chest X-ray", "request.prompt"),
    "localize_anatomy": ("findings.cardiomegaly.severity", "severe", "plan.findings"),
    "assess_pathology": ("age_group", "child", "plan.age_group"),
    "retrieve": ("seed", "11", "request.seed"),
    "map_features": ("images", "2", "request.images"),
    "write_report": ("candidates", "3", "request.candidates"),
    "compose": ("view", "AP", "plan.view"),
    "generate": ("structured.cardiothoracic_ratio", "0.7", "composed.structured"),
    "verify": ("rounds", "2", "request.rounds"),
    "select": ("rounds", "2", "request.rounds"),
    "refine": ("seed", "12", "request.seed"),
    "record": ("best", "image0-round1-1", "choices.best"),
}


@pytest.mark.parametrize("node", NODES)
def test_a_change_acts_from_every_node(parent: RunFolder, phantom: Agent, node: str) -> None:
    name, value, full = CHANGES[node]
    once = {"generate": 1, "verify": 2, "select": 2}
    run = fork(parent, node, {name: value}, round=once.get(node), agent=phantom)
    trace = load_run(run.folder)
    assert trace.summary.lineage is not None
    assert next(iter(trace.summary.lineage.changes)).startswith(full)
    ours, theirs = contents(run.folder), contents(parent.path)
    assert any(ours.get(f) != theirs.get(f) for f in {*ours, *theirs} if f.endswith(".png"))
    if full.startswith("request."):
        asked = getattr(trace.request, name)
        assert asked == RunFolder.open(run.folder).request.model_dump()[name]
        assert str(asked) == value


def test_what_the_generator_is_told_reaches_it(parent: RunFolder, phantom: Agent) -> None:
    changes = {"structured.cardiothoracic_ratio": 0.7, "prompt": "a big heart", "guidance": "3.5"}
    trace = load_run(fork(parent, "generate", changes, round=1, agent=phantom).folder)
    control, first = trace.candidates[:2]
    assert first.conditioning.structured["cardiothoracic_ratio"] == 0.7
    assert first.conditioning.prompt == "a big heart"
    assert control.conditioning.prompt == PROMPT and not control.conditioning.structured
    assert first.conditioning.guidance_scale == control.conditioning.guidance_scale == 3.5


def test_a_candidate_can_be_chosen_by_hand(parent: RunFolder, phantom: Agent) -> None:
    run = fork(parent, "record", {"best": "image0-round1-control"}, agent=phantom)
    assert run.results[0].candidate == "image0-round1-control" and run.accepted is False
    assert "chosen by hand" in (run.folder / "report.md").read_text()


def test_a_fork_can_be_forked(parent: RunFolder, phantom: Agent) -> None:
    child = fork(parent, "refine", {"seed": 5}, agent=phantom)
    grandchild = fork(RunFolder.open(child.folder), "compose", {"seed": 3}, agent=phantom)
    assert grandchild.results[0].candidate == load_run(parent).choices[0].best
    lineage = load_run(grandchild.folder).summary.lineage
    assert lineage is not None and lineage.parent == child.run_id


def test_a_moved_parent_can_be_forked(parent: RunFolder, phantom: Agent, tmp_path: Path) -> None:
    moved = parent.path.rename(tmp_path / "elsewhere")
    try:
        run = fork(RunFolder.open(moved), "verify", agent=phantom, out=tmp_path / "fork")
        assert run.folder == tmp_path / "fork" and run.accepted is True
    finally:
        moved.rename(parent.path)


@pytest.mark.parametrize(
    ("node", "changes", "round", "says"),
    [
        ("draw", {}, None, "fork at one of parse"),
        ("parse", {"composed.prompt": "x"}, None, "it can at generate, refine"),
        ("generate", {"modality": "fundus"}, None, "it can at parse"),
        ("generate", {"colour": "red"}, None, "set rounds"),
        ("compose", {"seed": "many"}, None, "seed=many"),
        ("compose", {"seed": "-1"}, None, "0 to"),
        ("compose", {"rounds": "99"}, None, "1 to 20"),
        ("compose", {"findings.0.severity": "awful"}, None, "severity"),
        ("compose", {"findings.7.severity": "mild"}, None, "'7'"),
        ("compose", {"findings.0.finding": "gout"}, None, "not known"),
        ("compose", {"findings": "[1,"}, None, "no JSON"),
        ("generate", {"structured.cardiothoracic_ratio": "2"}, None, "0.3 to 0.8"),
        ("generate", {"structured.cardiothoracic_ratio": "nan"}, None, "0.3 to 0.8"),
        ("generate", {"structured.view": "oblique"}, None, "PA, AP"),
        ("generate", {"guidance": "0.5"}, None, "1 to 30"),
        ("generate", {}, 9, "never came to generate in round 9"),
        ("parse", {}, 1, "once"),
        ("record", {"best": "nobody"}, None, "image0-round1-control"),
        ("record", {"seed": 1}, None, "it can at"),
        ("parse", {"prompt": ""}, None, "prompt is empty"),
    ],
)
def test_what_cannot_be_set_is_one_line_and_leaves_nothing(
    parent: RunFolder,
    phantom: Agent,
    tmp_path: Path,
    node: str,
    changes: dict[str, object],
    round: int | None,
    says: str,
) -> None:
    with pytest.raises(BadInput, match=says) as raised:
        fork(parent, node, changes, round=round, agent=phantom, out=tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@given(name=st.text(max_size=30), node=st.sampled_from(NODES), value=st.text(max_size=20))
def test_no_name_is_set_by_accident(name: str, node: str, value: str) -> None:
    from medgen.graphs.fork_fields import changed

    if name.split(".")[0] not in settable(node):
        with pytest.raises(BadInput):
            changed({"request": {"prompt": "x"}}, node, {name: value})

"""The agent's graph on phantom films: the loop, the folder, the budget, bad input, resuming."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from phantom import (
    PhantomGenerator,
    PhantomPanel,
    cardiothoracic_ratio,
    phantom_collaborators,
)
from PIL import Image

from medgen.agents.state import noise_seed
from medgen.data.images import SYNTHETIC_NOTICE
from medgen.errors import BadInput, MedgenError
from medgen.graphs.agent import Agent, build
from medgen.graphs.collaborators import Collaborators
from medgen.records import Conditioning, Critique, Plan, Request, Run, TraceEvent

PROMPT = "cardiomegaly, chest X-ray"
PATH = [
    "parse",
    "localize_anatomy",
    "assess_pathology",
    "retrieve",
    "map_features",
    "write_report",
    "compose",
]
ROUND = ["generate", "verify", "select"]


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_wiring_is_the_designs() -> None:
    drawn = build(Collaborators(), None).get_graph()
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    path = ["__start__", *PATH, *ROUND]
    assert edges == {
        *pairwise(path),
        ("select", "refine"),
        ("select", "record"),
        ("refine", "generate"),
        ("record", "__end__"),
    }


def test_langgraph_json_names_the_graph() -> None:
    from importlib import import_module

    root = Path(__file__).resolve().parents[2]
    path, factory = json.loads((root / "langgraph.json").read_text())["graphs"]["agent"].split(":")
    module = import_module(path.removeprefix("./").removesuffix(".py").replace("/", "."))
    assert set(getattr(module, factory)().get_graph().nodes) >= {*PATH, *ROUND, "refine", "record"}


def test_the_graph_runs_from_a_request_alone_as_other_tools_start_it(runs: Path) -> None:
    state = build(phantom_collaborators(), None).invoke(
        {"request": Request(prompt=PROMPT, rounds=1).model_dump(mode="json")}
    )
    assert (Path(state["folder"]) / "image.png").is_file()
    assert Path(state["folder"]).parent == runs.resolve()


def test_a_backend_that_reads_free_text_is_told_how_findings_look(runs: Path) -> None:
    generator = PhantomGenerator()
    generator.reads_free_text = True
    Agent(phantom_collaborators(generator)).run("severe cardiomegaly, chest X-ray", rounds=1)
    control, composed = generator.batches[0]
    assert control.prompt == "severe cardiomegaly, chest X-ray"
    assert "severe cardiomegaly" in composed.prompt
    assert "enlarged cardiac silhouette" in composed.prompt


def test_the_loop_corrects_what_it_measured(agent: Agent) -> None:
    run = agent.run(PROMPT, rounds=4, candidates=2)
    assert run.accepted is True
    assert run.control.accepted is False
    assert run.rounds > 1
    assert cardiothoracic_ratio(np.asarray(run.image)) > 0.5
    assert cardiothoracic_ratio(np.asarray(run.control_image)) < 0.5
    assert run.findings[0].verdict == "confirmed"
    assert run.candidates == 2 * run.rounds


def test_a_run_leaves_what_it_promises(agent: Agent, runs: Path) -> None:
    run = agent.run(PROMPT, seed=3, rounds=4)
    folder = runs / run.run_id
    for name in ("image.png", "report.md", "trace.jsonl", "trace.html", "run.json"):
        assert (folder / name).is_file(), name
    assert run.images == [str(folder / "image.png")]
    assert len(list((folder / "candidates").iterdir())) == run.candidates
    assert Run.model_validate_json((folder / "run.json").read_text()) == Run.model_validate(
        run.model_dump()
    )
    assert all(Path(path).is_absolute() for path in [*run.images, run.control.image, run.trace])
    report = (folder / "report.md").read_text()
    assert "cardiothoracic_ratio" in report and "**Accepted**" in report
    assert not list(folder.rglob(".*"))


def test_images_say_what_they_are(agent: Agent) -> None:
    run = agent.run(PROMPT, seed=3, rounds=4)
    for path in (run.images[0], run.control.image):
        text = Image.open(path).text  # type: ignore[attr-defined]
        assert text["Description"] == SYNTHETIC_NOTICE
        assert text["Prompt"] == PROMPT
        assert text["Run seed"] == "3"
        assert run.run_id.endswith(text["Run"])
        assert PhantomGenerator.fingerprint in text["Generator"]
    assert Image.open(run.images[0]).text["Verdict"] == "accepted"  # type: ignore[attr-defined]


def test_every_node_leaves_one_event_as_it_ends(agent: Agent) -> None:
    started: list[str] = []
    ended: list[TraceEvent] = []
    run = agent.run(PROMPT, rounds=4, on_start=started.append, on_event=ended.append)
    rounds = [*ROUND, *["refine", *ROUND] * (run.rounds - 1)]
    assert [event.node for event in ended] == started == [*PATH, *rounds, "record"]
    assert run.events == ended
    drawn = [event for event in ended if event.node == "generate"]
    assert [event.round for event in drawn] == list(range(1, run.rounds + 1))
    assert drawn[0].decided_by == "phantom"
    facts = next(event for event in ended if event.node == "retrieve").outputs["facts"]
    assert facts


def test_a_start_is_told_before_its_end(agent: Agent) -> None:
    order: list[tuple[str, str]] = []
    agent.run(
        PROMPT,
        rounds=1,
        on_start=lambda node: order.append(("start", node)),
        on_event=lambda event: order.append(("end", event.node)),
    )
    assert order == [
        (when, node) for node in [*PATH, *ROUND, "record"] for when in ("start", "end")
    ]


def test_the_control_is_the_prompt_as_typed_with_the_first_candidates_noise(runs: Path) -> None:
    generator = PhantomGenerator()
    Agent(phantom_collaborators(generator=generator)).run(PROMPT, seed=9, rounds=1, candidates=3)
    control, composed, other = generator.batches[0]
    assert PROMPT.split(",")[0] in control.prompt
    assert control.prompt != composed.prompt
    assert control.seed == composed.seed == noise_seed(9, 0, 1, 0)
    assert other.seed == noise_seed(9, 0, 1, 2)
    assert other.model_copy(update={"seed": 0}) == composed.model_copy(update={"seed": 0})


def test_the_verifier_only_ever_sees_the_users_prompt(runs: Path) -> None:
    panel = PhantomPanel()
    run = Agent(phantom_collaborators(panel=panel)).run(PROMPT, rounds=4)
    assert run.rounds > 1
    assert {plan.prompt for plan in panel.plans} == {PROMPT}
    assert len({plan.model_dump_json() for plan in panel.plans}) == 1


def test_same_seed_same_bytes_other_seed_other_bytes(agent: Agent) -> None:
    first, second = (agent.run(PROMPT, seed=5, rounds=4) for _ in range(2))
    other = agent.run(PROMPT, seed=6, rounds=4)
    assert first.run_id != second.run_id
    assert Path(first.images[0]).read_bytes() == Path(second.images[0]).read_bytes()
    assert (pixels(first.images[0]) != pixels(other.images[0])).any()


def test_several_images_each_have_their_own_result(agent: Agent) -> None:
    run = agent.run(PROMPT, images=3, rounds=4)
    assert [Path(path).name for path in run.images] == ["image_0.png", "image_1.png", "image_2.png"]
    assert len(run.results) == 3
    assert len({Path(path).read_bytes() for path in run.images}) == 3
    assert len({result.control.image for result in run.results}) == 3
    assert run.accepted is True and all(result.accepted for result in run.results)


def test_a_settled_image_is_not_drawn_again(runs: Path) -> None:
    generator = PhantomGenerator(noise=0.08)
    run = Agent(phantom_collaborators(generator=generator)).run(PROMPT, seed=3, images=4, rounds=6)
    settled = [int(result.candidate.split("round")[1][0]) for result in run.results]
    assert len(set(settled)) > 1, "seed does not separate the images: choose another"
    unsettled = [sum(last >= number for last in settled) for number in range(1, run.rounds + 1)]
    assert [len(batch) for batch in generator.batches] == [2 * count for count in unsettled]


def test_an_exhausted_budget_keeps_the_best_marked_as_rejected(runs: Path) -> None:
    agent = Agent(phantom_collaborators(panel=PhantomPanel(reject="it is a copy")))
    run = agent.run(PROMPT, rounds=2)
    assert run.accepted is False and run.rounds == 2
    text = Image.open(run.images[0]).text  # type: ignore[attr-defined]
    assert text["Verdict"] == "rejected: best candidate"
    report = Path(run.trace).with_name("report.md").read_text()
    assert "Rejected: best candidate" in report and "it is a copy" in report


def test_what_cannot_be_measured_is_not_accepted(agent: Agent) -> None:
    run = agent.run("pneumothorax, chest X-ray", rounds=5)
    assert run.accepted is None
    assert run.rounds == 2


def test_pictures_that_are_not_square_are_squared_for_the_verifier(runs: Path) -> None:
    class Wide(PhantomGenerator):
        def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
            return np.pad(super().sample(conditionings), ((0, 0), (0, 0), (32, 32), (0, 0)))

    class Sees(PhantomPanel):
        def verify(self, image: np.ndarray, plan: Plan, generated: bool = True) -> Critique:
            assert image.shape == (192, 192, 3)
            return super().verify(image[32:-32, 32:-32], plan, generated)

    run = Agent(phantom_collaborators(Wide(), Sees())).run(PROMPT, rounds=4)
    assert run.accepted is True and run.image.size == (192, 128)


def test_seconds_end_a_run(agent: Agent) -> None:
    run = agent.run(PROMPT, rounds=9, seconds=1e-6)
    assert run.rounds == 1


def test_out_receives_the_run(agent: Agent, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "here"
    run = agent.run(PROMPT, rounds=1, out=out)
    assert run.images == [str(out / "image.png")]


def test_plan_reasons_without_drawing(agent: Agent, runs: Path) -> None:
    plan = agent.plan(PROMPT)
    assert [finding.finding for finding in plan.findings] == ["cardiomegaly"]
    assert plan.report is not None and plan.signs and plan.regions
    assert not runs.exists()


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("", "prompt"), ("  ", "prompt"), ("cardiomegaly\x00, chest X-ray", "control character")],
)
def test_bad_prompts_leave_nothing(agent: Agent, runs: Path, prompt: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as raised:
        agent.run(prompt)
    assert "\n" not in str(raised.value)
    assert not runs.exists()


def test_lone_surrogates_are_bad_input(agent: Agent, runs: Path) -> None:
    with pytest.raises(BadInput):
        agent.run("cardiomegaly \ud800")
    assert not runs.exists()


def test_what_nothing_can_draw_leaves_nothing(agent: Agent, runs: Path, tmp_path: Path) -> None:
    prompt = "breast with tumor, MRI"
    assert agent.plan(prompt).modality != "Chest X-ray"
    with pytest.raises(BadInput, match="Chest X-ray"):
        agent.run(prompt)
    with pytest.raises(BadInput, match="Chest X-ray"):
        agent.run(prompt, out=tmp_path / "a" / "b")
    assert not runs.exists() and not (tmp_path / "a").exists()


@pytest.mark.parametrize("wrong", [{"images": 0}, {"rounds": 0}, {"candidates": 0}])
def test_empty_budgets_are_bad_input(agent: Agent, runs: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        agent.run(PROMPT, **wrong)  # type: ignore[arg-type]
    assert not runs.exists()


def test_a_finished_run_can_be_read_again(agent: Agent) -> None:
    run = agent.run(PROMPT, rounds=4)
    drawn = Path(run.images[0]).stat().st_mtime_ns
    Path(run.trace).unlink()
    again = agent.run(resume=run.run_id)
    assert again == run
    assert Path(run.images[0]).stat().st_mtime_ns == drawn
    assert again.events


def test_resume_refuses_other_weights(runs: Path) -> None:
    class Stops(PhantomGenerator):
        def sample(self, conditionings: object) -> np.ndarray:
            raise RuntimeError("power cut")

    with pytest.raises(MedgenError, match="power cut") as raised:
        Agent(phantom_collaborators(generator=Stops())).run(PROMPT)
    (folder,) = runs.iterdir()
    assert str(raised.value).endswith(f"--resume {folder.name}")
    other = PhantomGenerator()
    other.fingerprint = "f" * 64
    with pytest.raises(BadInput, match="start a new run"):
        Agent(phantom_collaborators(generator=other)).run(resume=folder.name)
    assert Agent(phantom_collaborators()).run(resume=folder).run_id == folder.name


def test_resume_refuses_another_prompt_and_unknown_runs(agent: Agent) -> None:
    run = agent.run(PROMPT, rounds=1)
    with pytest.raises(BadInput, match="was asked"):
        agent.run("pneumonia, chest X-ray", resume=run.run_id)
    with pytest.raises(BadInput, match="no run"):
        agent.run(resume="20200101-000000-000000-deadbeef")

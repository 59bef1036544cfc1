"""`import medgen`: quick, and every promised name leads somewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from phantom import PhantomGenerator, phantom_collaborators

import medgen
from medgen.graphs.agent import Agent


def test_importing_medgen_imports_nothing_heavy() -> None:
    heavy = ("torch", "langgraph", "numpy", "pydantic", "lightrag", "diffusers", "transformers")
    code = f"import sys, medgen; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_every_name_leads_to_its_home() -> None:
    for name in medgen.__all__:
        assert getattr(medgen, name) is not None
    for name, (module, attribute) in medgen.HOMES.items():
        assert getattr(medgen, name) is getattr(import_module(module), attribute)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = medgen.x


def test_load_generator_refuses_unknown_backends() -> None:
    with pytest.raises(medgen.BadInput, match="nonsense"):
        medgen.load_generator("nonsense")


def test_a_run_is_loaded_by_id_by_its_beginning_and_from_where_it_was_moved(
    agent: Agent, runs: Path
) -> None:
    run = agent.run("cardiomegaly, chest X-ray", images=2, rounds=1, seed=3)
    assert medgen.load(run.run_id) == medgen.load(run.run_id[:20]) == medgen.load(run.folder) == run
    moved = runs.parent / "elsewhere"
    shutil.move(run.folder, moved)
    again = medgen.load(moved)
    assert again.images == [str(moved / "image_0.png"), str(moved / "image_1.png")]
    assert Path(again.results[1].control.image).is_file() and Path(again.trace).is_file()
    assert again.request.seed == 3 and again.events and again.image.size == (128, 128)


def test_what_cannot_be_loaded_says_why(agent: Agent, runs: Path) -> None:
    with pytest.raises(medgen.BadInput, match="no run"):
        medgen.load("20200101")
    run = agent.run("cardiomegaly, chest X-ray", rounds=1)
    (run.folder / "run.json").write_text("{}")
    with pytest.raises(medgen.BadInput, match="damaged"):
        medgen.load(run.folder)
    (run.folder / "run.json").unlink()
    with pytest.raises(medgen.BadInput, match="not finished"):
        medgen.load(run.folder)


def test_steps_guidance_and_negative_reach_the_generator(runs: Path) -> None:
    generator = PhantomGenerator()
    Agent(phantom_collaborators(generator)).run(
        "cardiomegaly, chest X-ray", rounds=1, steps=5, guidance=2.5, negative="tubes"
    )
    for told in generator.batches[0]:
        assert (told.steps, told.guidance_scale, told.negative_prompt) == (5, 2.5, "tubes")


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"guidance": 0.5}])
def test_drawing_options_out_of_range_are_bad_input(
    agent: Agent, runs: Path, wrong: dict[str, float]
) -> None:
    with pytest.raises(medgen.BadInput, match=next(iter(wrong))):
        agent.run("cardiomegaly, chest X-ray", **wrong)  # type: ignore[arg-type]
    assert not runs.exists()

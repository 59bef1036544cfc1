"""One draw without verification: what is told, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phantom import PhantomGenerator, phantom_collaborators
from PIL import Image

from medgen.agents.state import noise_seed
from medgen.errors import BadInput
from medgen.graphs.generate import DRAWING, generate
from medgen.graphs.results import DrawingResult

PROMPT = "cardiomegaly, chest X-ray"


def test_composed_draw_tells_numbers_and_raw_draw_only_the_prompt(tmp_path: Path) -> None:
    generator = PhantomGenerator()
    minds = phantom_collaborators(generator=generator)
    generate(PROMPT, seed=4, images=2, out=tmp_path / "composed", collaborators=minds)
    generate(PROMPT, seed=4, images=2, out=tmp_path / "raw", raw=True, collaborators=minds)
    composed, raw = generator.batches
    assert all(one.structured["cardiothoracic_ratio"] > 0.5 for one in composed)
    assert all(one.prompt == PROMPT and one.structured == {} for one in raw)
    noise = [noise_seed(4, 0, 1, 0), noise_seed(4, 1, 1, 0)]
    assert [one.seed for one in composed] == [one.seed for one in raw] == noise


def test_a_backend_that_reads_free_text_is_told_grade_place_and_looks(tmp_path: Path) -> None:
    prompt = "severe left lower lobe pneumonia, 60-year-old woman, chest X-ray"
    told = []
    for reads in (True, False):
        generator = PhantomGenerator()
        generator.reads_free_text = reads
        minds = phantom_collaborators(generator=generator)
        generate(prompt, out=tmp_path / str(reads), collaborators=minds)
        told.append(generator.batches[0][0].prompt)
    described, plain = told
    assert "severe pneumonia in the left lower lobe" in described
    assert "airspace opacity" in described and "female" in described
    assert "severe" not in plain and "airspace opacity" not in plain


def test_given_conditions_win_over_composed_ones(tmp_path: Path) -> None:
    generator = PhantomGenerator()
    generate(
        PROMPT,
        steps=7,
        guidance=3.5,
        negative="pacemaker",
        structured={"cardiothoracic_ratio": 0.61, "sex": "female"},
        out=tmp_path / "run",
        collaborators=phantom_collaborators(generator=generator),
    )
    (told,) = generator.batches[0]
    assert told.structured["cardiothoracic_ratio"] == 0.61
    assert told.structured["sex"] == "female" and told.structured["view"] == "PA"
    assert (told.steps, told.guidance_scale, told.negative_prompt) == (7, 3.5, "pacemaker")


def test_images_and_record_are_written_and_marked(tmp_path: Path) -> None:
    minds = phantom_collaborators()
    drawing = generate(PROMPT, seed=9, out=tmp_path / "a" / "b", collaborators=minds)
    assert drawing.images == [str(tmp_path / "a" / "b" / "image.png")]
    assert drawing.conditioning.seed == 9
    with Image.open(drawing.images[0]) as image:
        assert image.info["Synthetic"] == "YES" and image.info["Prompt"] == PROMPT
        assert image.info["Seed"] == str(drawing.noise_seeds[0])
    written = json.loads((tmp_path / "a" / "b" / DRAWING).read_text())
    assert DrawingResult.model_validate(written) == drawing
    again = generate(PROMPT, seed=9, out=tmp_path / "c", collaborators=minds)
    assert Path(again.images[0]).read_bytes() == Path(drawing.images[0]).read_bytes()


def test_default_folders_lie_under_runs_and_never_collide(runs: Path) -> None:
    minds = phantom_collaborators()
    first, second = (generate(PROMPT, collaborators=minds) for _ in range(2))
    parents = {Path(drawing.images[0]).parent for drawing in (first, second)}
    assert len(parents) == 2
    assert {parent.parent for parent in parents} == {runs.resolve()}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": 0.0}, "guidance"),
        ({"structured": {"cardiothoracic_ratio": "large"}}, "needs a number"),
        ({"structured": {"cardiothoracic_ratio": float("inf")}}, "needs a number"),
        ({"structured": {"view": "lateral"}}, "PA, AP"),
        ({"structured": {"wisdom": 1.0}}, "cardiothoracic_ratio"),
        ({"images": 0}, "images"),
        ({"prompt": "glioma, brain MRI"}, "Chest X-ray"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    given: dict[str, object] = {"prompt": PROMPT, "out": tmp_path / "out", **changes}
    with pytest.raises(BadInput, match=named):
        generate(**given, collaborators=phantom_collaborators())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_earlier_images_are_not_overwritten(tmp_path: Path) -> None:
    minds = phantom_collaborators()
    drawing = generate(PROMPT, out=tmp_path, collaborators=minds)
    before = Path(drawing.images[0]).read_bytes()
    with pytest.raises(BadInput, match="already holds"):
        generate(PROMPT, seed=1, out=tmp_path, collaborators=minds)
    assert Path(drawing.images[0]).read_bytes() == before


@pytest.mark.parametrize("place", ["file/below", "file", "nul\0byte", "x" * 300])
def test_unusable_folders_are_bad_input(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(BadInput, match="choose a folder"):
        generate(PROMPT, out=tmp_path / place, collaborators=phantom_collaborators())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""A modality card plus a diffusers folder adds a modality: planned, drawn, marked."""

import os

import numpy as np
import pytest
from PIL import Image
from pipelines import stable_diffusion

from medgen.errors import BadInput
from medgen.generator.backends import available_cores, load_generator
from medgen.knowledge import cards
from medgen.records import Conditioning
from medgen.settings import Settings, settings

BREAST_CARD = """
name: Breast MRI
aliases: [breast mri, mri breast]
drawing_phrase: breast MRI
regions: [{name: breast}]
report:
  history: "Requested: {request}."
  technique: Axial breast MRI.
  normal_findings: {breast: No abnormality.}
  impression_normal: Normal.
"""


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def breast_card(tmp_path, monkeypatch):
    (tmp_path / "breast_mri.yaml").write_text(BREAST_CARD)
    monkeypatch.setenv("MEDGEN_MODALITY_CARDS", str(tmp_path))
    settings.cache_clear()
    cards.modality_cards.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()
    cards.modality_cards.cache_clear()


def test_a_card_and_a_diffusers_folder_draw_a_new_modality(pipeline_folder, breast_card):
    generator = load_generator(Settings(backend=f"diffusers:{pipeline_folder}", steps=2))
    assert "Breast MRI" in generator.modalities
    assert generator.reads_free_text
    ask = Conditioning(prompt="breast with tumor", modality="Breast MRI", seed=1)
    first, again = generator.sample([ask]), generator.sample([ask])
    assert first.shape[-1] == 3
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, generator.sample([ask.model_copy(update={"seed": 2})]))


def test_a_mask_keeps_what_lies_outside(pipeline_folder, tmp_path):
    generator = load_generator(Settings(backend=f"diffusers:{pipeline_folder}", steps=4))
    start = generator.sample([Conditioning(prompt="film", modality="OCT", seed=3)])[0]
    side = len(start)
    mask = np.zeros((side, side), np.uint8)
    mask[:, side // 2 :] = 255
    for name, pixels in (("start", start), ("mask", mask)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    paths = {"init_image": str(tmp_path / "start.png"), "strength": 1.0}
    ask = Conditioning(prompt="film", modality="OCT", seed=4, **paths)
    masked = ask.model_copy(update={"mask_image": str(tmp_path / "mask.png")})
    whole, part = generator.sample([ask, masked]).astype(int)
    assert np.array_equal(part[:, : side // 2], start[:, : side // 2])
    assert not np.array_equal(part[:, side // 2 :], start[:, side // 2 :])
    assert not np.array_equal(whole[:, : side // 2], start[:, : side // 2])
    with pytest.raises(BadInput, match="mask_image needs init_image"):
        generator.sample([masked.model_copy(update={"init_image": None})])


def test_without_a_card_it_is_refused(pipeline_folder):
    generator = load_generator(Settings(backend=f"diffusers:{pipeline_folder}", steps=2))
    with pytest.raises(BadInput, match="modality card"):
        generator.sample([Conditioning(prompt="breast", modality="Breast MRI")])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_threads_are_the_cores_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cores() == len(before)


@pytest.mark.parametrize("backend", ["", "compact:x", "magic", "diffusers:"])
def test_unknown_backends_are_named(backend):
    with pytest.raises(BadInput, match="MEDGEN_BACKEND"):
        load_generator(Settings(backend=backend))


def test_a_folder_without_a_pipeline_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"model_index\.json") as caught:
        load_generator(Settings(backend=f"diffusers:{tmp_path}"))
    assert "\n" not in str(caught.value)

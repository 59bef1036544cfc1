"""Gradient guidance: towards what is asked, alike whatever is drawn beside it, and never silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgen.errors import BadInput
from medgen.generator.backends import BUNDLED
from medgen.generator.compact import CompactGenerator
from medgen.generator.steering import DRAWING, Steering
from medgen.measure.reader import bundled_reader
from medgen.records import Conditioning

BRAIN = Conditioning(prompt="meningioma, brain MRI", modality="Brain MRI", steps=5, seed=3)
AIMS = {"brain_tumor": ["meningioma"]}


@pytest.fixture(scope="module")
def generator() -> CompactGenerator:
    return CompactGenerator(BUNDLED, steps=5, guidance_scale=1.6, micro_batch=2)


def shown(image: np.ndarray) -> float:
    return bundled_reader().read(image[None])[0].heads["brain_tumor"]["meningioma"]


def test_another_reader_sees_more_of_what_was_aimed_at(generator: CompactGenerator) -> None:
    plain, steered = generator.sample([BRAIN, BRAIN.model_copy(update={"aims": AIMS})])
    assert shown(steered) > shown(plain) + 0.05


def test_bytes_repeat_beside_others_and_the_unsteered_stay(generator: CompactGenerator) -> None:
    steered = BRAIN.model_copy(update={"aims": AIMS})
    alone = generator.sample([steered])[0]
    other = BRAIN.model_copy(update={"aims": {"brain_tumor": ["glioma"]}, "seed": 9})
    plain, beside, _ = generator.sample([BRAIN, steered, other])
    assert np.array_equal(alone, beside)
    assert np.array_equal(plain, generator.sample([BRAIN])[0])


def test_unknown_aims_are_named(generator: CompactGenerator) -> None:
    for aims, said in (({"brain": ["glioma"]}, "no head"), ({"brain_tumor": ["x"]}, "no class")):
        with pytest.raises(BadInput, match=said):
            generator.sample([BRAIN.model_copy(update={"aims": aims})])


def test_a_step_has_a_fixed_length_and_the_sure_stay() -> None:
    reader = bundled_reader()
    classes = next(head.classes for head in reader.heads if head.name == "brain_tumor")
    steering = Steering(reader, lambda latents: latents)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draws = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    moved = steering.moved(images, [AIMS, {"brain_tumor": classes}], draws)
    assert torch.linalg.vector_norm(moved[0] - images[0]).item() == pytest.approx(
        DRAWING.step * images[0].numel() ** 0.5, rel=1e-4
    )
    assert torch.equal(moved[1], images[1])  # any class will do: nothing is asked

"""Image quality: each fault is named on an image that has it, and clean images pass."""

import numpy as np
import pytest
from scipy import ndimage

from medgen.errors import BadInput
from medgen.measure.quality import measure_quality, measure_ranges, quality_ranges, quantities

MODALITIES = ("Brain MRI", "Chest CT", "Chest X-ray", "Fundus", "OCT")


def picture(seed=0, contrast=45.0, level=120.0):
    """A smooth grey field with structure at several scales, (256, 256, 3) uint8."""
    draws = np.random.default_rng(seed)
    field = sum(
        ndimage.gaussian_filter(draws.normal(size=(256, 256)), sigma) * sigma
        for sigma in (2, 6, 16, 40)
    )
    field = (field - field.mean()) / field.std() * contrast + level
    return np.repeat(field.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def test_blank_images_are_named_first_in_every_modality() -> None:
    for modality in (*MODALITIES, "Breast MRI"):
        for level in (0, 128, 255):
            quality = measure_quality(np.full((256, 256, 3), level, np.uint8), modality)
            assert quality.problems[0] == "blank image" and quality.score == 0


def test_a_structured_grey_image_passes_as_a_chest_film() -> None:
    quality = measure_quality(picture(), "Chest X-ray")
    assert "blank image" not in quality.problems and "noisy" not in quality.problems
    assert "colour in a grey modality" not in quality.problems
    assert all(m.accuracy and m.check == "quality" for m in quality.measurements)


def test_noise_colour_and_their_absence_are_named() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert {"noisy", "colour in a grey modality"} <= set(measure_quality(noise, "OCT").problems)
    assert "no colour in a colour modality" in measure_quality(picture(), "Fundus").problems


def test_exposure_is_named() -> None:
    dark, bright = picture(level=6, contrast=5), picture(level=252, contrast=4)
    assert "underexposed" in measure_quality(dark, "Chest X-ray").problems
    assert {"overexposed"} <= set(measure_quality(bright, "Chest X-ray").problems)


def test_quantities_follow_what_they_name() -> None:
    sharp = picture()
    blurred = ndimage.gaussian_filter(sharp, (3, 3, 0))
    assert quantities(blurred)["sharpness"] < 0.6 * quantities(sharp)["sharpness"]
    grain = np.random.default_rng(0).normal(0, 12, (256, 256, 1))
    noisy = (sharp + grain).clip(0, 255).astype(np.uint8)
    assert quantities(noisy)["noise"] > 2 * quantities(sharp)["noise"]
    padded = sharp.copy()
    padded[:64], padded[192:] = 0, 0
    assert quantities(padded)["padding"] == pytest.approx(0.5, abs=0.02)
    assert quantities(sharp)["padding"] == 0


def test_score_falls_from_one_at_the_range_to_nothing_at_the_hard_limit() -> None:
    images = np.stack([picture(seed, level=100 + 2 * seed) for seed in range(20)])
    table = measure_ranges(images, ["A"] * 20, set())["modalities"]
    assert set(table) == {"A", "any"}
    assert table["A"]["brightness"]["low"] < 110 < table["A"]["brightness"]["high"]
    assert table["A"]["brightness"]["hard_low"] < table["A"]["brightness"]["low"]


def test_ranges_are_ordered_for_every_modality() -> None:
    for modality in MODALITIES:
        for name, limits in quality_ranges()[modality].items():
            if limits["low"] is not None:
                assert limits["hard_low"] < limits["low"], (modality, name)
            if limits["high"] is not None:
                assert limits["hard_high"] > limits["high"], (modality, name)


@pytest.mark.parametrize("shape", [(256, 256), (256, 128, 3), (64, 64, 3)])
def test_other_shapes_are_bad_input(shape) -> None:
    with pytest.raises(BadInput, match=r"medgen\.data\.images"):
        quantities(np.zeros(shape, np.uint8))

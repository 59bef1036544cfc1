"""Memorisation: near-copies are nearer than strangers, and the bundled index answers."""

import numpy as np
import pytest
from PIL import Image

from medgen.errors import BadInput
from medgen.measure.build_memorisation import DISTORTIONS, distorted, projection
from medgen.measure.memorisation import (
    MemorisationIndex,
    bundled_index,
    coarse,
    nearest_training,
    reduced,
    variants,
)


def picture(seed):
    """Blobs of three sizes of its own, (256, 256, 3) uint8."""
    draws = np.random.default_rng(seed)
    field = np.zeros((256, 256))
    for cells in (5, 9, 17):
        noise = Image.fromarray(draws.normal(size=(cells, cells)).astype(np.float32))
        field += np.asarray(noise.resize((256, 256), Image.Resampling.BICUBIC))
    field = (field - field.mean()) / field.std() * 40 + 120
    return np.repeat(field.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def small_index():
    """An index of 120 drawn pictures, seeds 0 to 119."""
    pictures = np.stack([picture(seed) for seed in range(120)])
    rows = coarse(reduced(pictures))
    matrix, mean = projection(rows)
    index = MemorisationIndex(matrix, mean, {}, {}, {})
    vectors = index.descriptors(reduced(pictures))
    calibration = {"A": {"threshold": 0.3, "distances": [0.5, 0.6, 0.7]}}
    names = {"A": [str(seed) for seed in range(120)]}
    return MemorisationIndex(matrix, mean, {"A": vectors}, names, calibration)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_distorted_copies_find_their_original(small_index, kind) -> None:
    for seed in (3, 50, 119):
        distance, name = small_index.nearest(distorted(picture(seed), kind), "A")
        assert name == str(seed)
        stranger, _ = small_index.nearest(picture(1000 + seed), "A")
        assert distance < 0.7 * stranger


def test_an_exact_copy_is_at_no_distance_and_flagged(small_index) -> None:
    from medgen.records import NearestTraining

    distance, name = small_index.nearest(picture(7), "A")
    assert distance < 0.02 and name == "7"
    assert small_index.too_close(NearestTraining(distance=distance, percentile=0), "A")
    assert not small_index.too_close(NearestTraining(distance=0.5, percentile=0), "A")
    assert small_index.percentile(0.65, "A") == pytest.approx(200 / 3)


def test_index_comes_back_from_its_files(small_index, tmp_path) -> None:
    small_index.save(tmp_path, {"source": "drawn"})
    again = MemorisationIndex.load(tmp_path)
    for seed in (3, 77, 1003):
        distance, name = small_index.nearest(picture(seed), "A")
        assert again.nearest(picture(seed), "A") == (pytest.approx(distance, abs=0.02), name)
    assert again.calibration == small_index.calibration


def test_modality_without_training_images_is_never_too_close(small_index) -> None:
    assert small_index.nearest(picture(1), "B") == (2.0, None)
    assert small_index.percentile(0.0, "B") == 100


def test_descriptor_ignores_brightness_and_contrast() -> None:
    image = picture(1)
    darker = (image * 0.6 + 20).astype(np.uint8)
    rows = coarse(reduced(np.stack([image, darker])))
    assert rows[0] @ rows[1] > 0.999
    assert np.abs(coarse(np.full((1, 128, 128), 7.0, np.float32))).max() == 0
    assert variants(reduced(image[None])[0]).shape == (27, 128, 128)


def test_bundled_index_answers_for_any_image() -> None:
    images = np.stack([picture(1), np.zeros((256, 256, 3), np.uint8)])
    found = nearest_training(images, ["Chest X-ray", "Fundus"])
    assert all(0 <= one.distance <= 2 and 0 <= one.percentile <= 100 for one in found)
    assert not any(
        bundled_index().too_close(one, m)
        for one, m in zip(found, ("Chest X-ray", "Fundus"), strict=True)
    )
    assert found == nearest_training(images, ["Chest X-ray", "Fundus"])


def test_bundled_projection_came_back_in_order() -> None:
    """Principal components are orthogonal; a projection scrambled on its way would not be."""
    product = bundled_index().projection.T @ bundled_index().projection
    scale = np.sqrt(np.diag(product))
    assert np.abs(product / np.outer(scale, scale) - np.eye(len(scale))).max() < 0.01


def test_bundled_calibration_is_ascending() -> None:
    for modality, known in bundled_index().calibration.items():
        assert known["distances"] == sorted(known["distances"]), modality
        assert 0 < known["threshold"] < known["median_held_out"]


def test_other_shapes_and_missing_files_are_bad_input(tmp_path) -> None:
    with pytest.raises(BadInput, match="uint8"):
        nearest_training(np.zeros((1, 256, 256), np.uint8), ["OCT"])
    with pytest.raises(BadInput, match="not square"):
        nearest_training(np.zeros((1, 256, 128, 3), np.uint8), ["OCT"])
    with pytest.raises(BadInput, match="no memorisation index"):
        MemorisationIndex.load(tmp_path)

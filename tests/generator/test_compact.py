"""The bundled weights draw what they are told, the same bytes each time."""

import json

import numpy as np
import pytest
from PIL import Image

from medgen.errors import BadInput, MedgenError
from medgen.generator.backends import BUNDLED
from medgen.generator.compact import CompactGenerator
from medgen.records import Conditioning

STEPS = 6


@pytest.fixture(scope="module")
def generator():
    return CompactGenerator(BUNDLED, steps=STEPS, guidance_scale=2.0, micro_batch=4)


def _ask(prompt, modality, seed=0, **values):
    return Conditioning(prompt=prompt, modality=modality, seed=seed, **values)


def test_five_modalities_in_one_model(generator):
    assert set(generator.modalities) == {
        "Brain MRI", "Chest CT", "Chest X-ray", "Fundus", "OCT",
    }  # fmt: skip


def test_bytes_depend_on_the_seed_and_not_on_the_company(generator):
    film = _ask("chest X-ray, normal chest", "Chest X-ray", seed=3)
    eye = _ask("fundus photograph, glaucoma", "Fundus", seed=4)
    alone = generator.sample([film])
    together = generator.sample([eye, film, eye, eye, film])
    assert np.array_equal(alone[0], together[1])
    assert np.array_equal(alone[0], together[4])
    assert not np.array_equal(alone, generator.sample([film.model_copy(update={"seed": 5})]))


def test_the_bundled_weights_draw_what_they_drew_when_they_were_bundled():
    """Means of 64x64 squares (seeds 3 and 4, 4 steps), so that a refactoring cannot drift."""
    guided = CompactGenerator(
        BUNDLED, steps=4, guidance_scale=1.6, micro_batch=2, number_guidance=1.5
    )
    film = _ask("chest X-ray, cardiomegaly", "Chest X-ray", 3)
    film = film.model_copy(update={"structured": {"cardiothoracic_ratio": 0.55}})
    eye = _ask("fundus photograph, glaucoma", "Fundus", 4, negative_prompt="cataract")
    drawn = guided.sample([film, eye]).reshape(2, 4, 64, 4, 64, 3).mean((2, 4, 5))
    then = [
        [[47.5, 94.6, 70.2, 42.2], [93.9, 149.0, 113.0, 83.4],
         [148.3, 188.5, 185.5, 130.2], [118.4, 145.1, 156.2, 122.6]],
        [[15.5, 61.7, 82.5, 28.9], [78.3, 106.8, 113.2, 90.0],
         [76.7, 112.6, 114.2, 82.9], [21.2, 77.5, 78.0, 24.8]],
    ]  # fmt: skip
    assert np.abs(drawn - then).max() < 0.5


def test_grey_modalities_are_grey_and_fundus_is_red(generator):
    film, eye = generator.sample(
        [_ask("chest X-ray", "Chest X-ray"), _ask("fundus photograph", "Fundus")]
    ).astype(float)
    assert np.ptp(film, axis=2).max() == 0
    assert eye[..., 0].mean() > eye[..., 2].mean() + 10


def test_img2img_stays_near_its_start_and_nearer_at_low_strength(generator, tmp_path):
    ask = _ask("brain MRI, glioma", "Brain MRI", seed=1)
    start = generator.sample([ask])[0]
    path = tmp_path / "start.png"
    Image.fromarray(start).save(path)

    def distance(strength):
        changed = ask.model_copy(update={"seed": 2, "init_image": str(path), "strength": strength})
        return np.abs(generator.sample([changed])[0].astype(float) - start).mean()

    fresh = generator.sample([ask.model_copy(update={"seed": 2})])[0]
    assert distance(0.2) < distance(0.9)
    assert distance(0.2) < np.abs(fresh.astype(float) - start).mean()


def test_structured_condition_and_negative_prompt_change_the_picture(generator):
    plain = _ask("chest X-ray", "Chest X-ray")
    wide = plain.model_copy(update={"structured": {"cardiothoracic_ratio": 0.65}})
    without = plain.model_copy(update={"negative_prompt": "cardiomegaly"})
    first, second, third = generator.sample([plain, wide, without])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_number_guidance_widens_the_difference_that_a_number_makes_and_leaves_others_alone():
    def draw(number_guidance):
        options = {"steps": STEPS, "guidance_scale": 1.6, "micro_batch": 4}
        guided = CompactGenerator(BUNDLED, number_guidance=number_guidance, **options)
        plain = _ask("chest X-ray, adult", "Chest X-ray", seed=1)
        asks = [
            plain.model_copy(update={"structured": {"cardiothoracic_ratio": ratio}})
            for ratio in (0.40, 0.52)
        ]
        return guided.sample([plain, *asks]).astype(float)

    without, with_ = draw(0.0), draw(1.5)
    assert np.array_equal(without[0], with_[0])
    assert np.abs(with_[1] - with_[2]).mean() > 1.2 * np.abs(without[1] - without[2]).mean()


def test_a_modality_that_it_cannot_draw_is_refused_with_those_it_can(generator):
    with pytest.raises(BadInput, match=r"cannot draw Breast MRI.*Fundus"):
        generator.sample([_ask("breast with tumor", "Breast MRI")])


def test_an_unknown_structured_condition_is_bad_input(generator):
    with pytest.raises(BadInput, match="heart_rate"):
        generator.sample([_ask("chest X-ray", "Chest X-ray", structured={"heart_rate": 70.0})])


def test_missing_or_broken_weights_are_one_line(tmp_path):
    options = {"steps": 2, "guidance_scale": 1.0, "micro_batch": 1}
    with pytest.raises(BadInput, match=r"generator\.json"):
        CompactGenerator(tmp_path, **options)
    (tmp_path / "generator.json").write_text(json.dumps({"size": 256}))
    with pytest.raises(MedgenError) as caught:
        CompactGenerator(tmp_path, **options)
    assert "\n" not in str(caught.value)

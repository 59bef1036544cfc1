"""Samplers, guidance over the steps and masked re-noising, on a small random model on disk."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from medgen.errors import BadInput
from medgen.generator.compact import CompactGenerator
from medgen.generator.sampling import Levels, Sampling, blend, bounded, latent_mask
from medgen.generator.training.config import TrainingConfig
from medgen.generator.training.loop import train
from medgen.records import Conditioning
from medgen.settings import Settings

STEPS = 4


@pytest.fixture(scope="module")
def folder(settings_of_training, tmp_path_factory):
    config = {**settings_of_training, "steps": 2, "lr": 0.01}
    return train(TrainingConfig(**config, out=tmp_path_factory.mktemp("sampled")))


@pytest.fixture(scope="module")
def make(folder):
    def with_(guidance_scale=3.0, number_guidance=0.0, **sampling):
        return CompactGenerator(
            folder, steps=STEPS, guidance_scale=guidance_scale, micro_batch=2,
            number_guidance=number_guidance, sampling=Sampling(**sampling),
        )  # fmt: skip

    return with_


@pytest.fixture
def forwards(monkeypatch):
    """Sizes of the batches that the U-Net sees."""
    from medgen.generator.unet import MedicalUNet

    sizes, forward = [], MedicalUNet.forward

    def counting(self, sample, *arguments, **named):
        sizes.append(len(sample))
        return forward(self, sample, *arguments, **named)

    monkeypatch.setattr(MedicalUNet, "forward", counting)
    return sizes


def _ask(**values):
    return Conditioning(**{"prompt": "glioma", "modality": "Brain MRI", "seed": 1, **values})


@pytest.mark.parametrize("sampler", ["dpmsolver++", "ddim", "unipc"])
def test_each_sampler_repeats_its_bytes_and_differs_from_the_others(make, sampler):
    drawn = make(sampler=sampler).sample([_ask(), _ask(seed=2), _ask()])
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])
    others = {"dpmsolver++", "ddim", "unipc"} - {sampler}
    assert all(not np.array_equal(make(sampler=s).sample([_ask()])[0], drawn[0]) for s in others)


def test_guidance_outside_its_interval_is_not_computed(make, forwards):
    make().sample([_ask()])
    assert forwards == [4] * STEPS, "two pictures, with and without the condition"
    forwards.clear()
    inside = make(interval=(0.3, 0.8)).sample([_ask()])
    assert sorted(forwards) == [2, 2, 4, 4]
    forwards.clear()
    never = make(interval=(0.0, 0.0)).sample([_ask()])
    assert forwards == [2] * STEPS
    alone = make(guidance_scale=1.0).sample([_ask()])
    assert np.array_equal(never, alone)
    assert not np.array_equal(never, inside)


def test_a_schedule_grows_with_the_same_mean():
    scales = torch.tensor([3.0])
    for schedule in ("linear", "cosine"):
        sampling = Sampling(schedule=schedule)
        values = [float(sampling.scale(scales, (i + 0.5) / 50)) for i in range(50)]
        assert values == sorted(values)
        assert values[0] < 1.2
        assert np.mean(values) == pytest.approx(3.0, rel=1e-3)
    assert float(Sampling().scale(scales, 0.1)) == 3.0


def test_schedules_change_the_picture_and_not_a_scale_of_one(make):
    constant, cosine = make().sample([_ask()]), make(schedule="cosine").sample([_ask()])
    assert not np.array_equal(constant, cosine)
    plain = _ask(guidance_scale=1.0)
    assert np.array_equal(make().sample([plain]), make(schedule="cosine").sample([plain]))


def test_a_scale_of_nothing_hears_the_negative_prompt_alone(make, forwards):
    def draw(**values):
        return make().sample([_ask(guidance_scale=0.0, **values)])

    first = draw()
    assert forwards == [2] * STEPS
    assert np.array_equal(first, draw(prompt="meningioma"))
    assert not np.array_equal(first, draw(negative_prompt="meningioma"))


def test_without_prompt_and_modality_it_draws_anything_in_colour(make):
    anything = make().sample([_ask(prompt="", modality="")])[0].astype(int)
    assert np.ptp(anything, axis=2).max() > 0
    named = make().sample([_ask(prompt="")])[0].astype(int)
    assert np.ptp(named, axis=2).max() == 0


def test_the_threshold_holds_guidance_to_the_size_of_the_plain_prediction(make):
    torch.manual_seed(0)
    given = torch.randn(2, 4, 8, 8)
    guided = given * torch.tensor([4.0, 0.5]).view(2, 1, 1, 1)
    held = bounded(guided, given, 0.9)
    limit = float(given[0].abs().flatten().quantile(0.9))
    assert float(held[0].abs().flatten().quantile(0.9)) == pytest.approx(limit, rel=1e-2)
    assert held[0].abs().max() <= limit * 1.001
    assert torch.equal(held[1], guided[1]), "what is small enough is left alone"
    wild = _ask(guidance_scale=15.0)
    free, bound = make().sample([wild])[0], make(threshold=0.9).sample([wild])[0]

    def excess(pixels):
        return ((pixels == 0) | (pixels == 255)).mean()

    assert excess(bound) <= excess(free)
    assert not np.array_equal(free, bound)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_predictions_are_turned_into_clean_latents_and_back(prediction):
    torch.manual_seed(0)
    alpha = torch.tensor(0.3)
    clean, noise = torch.randn(2, 4), torch.randn(2, 4)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    predicted = {
        "epsilon": noise, "sample": clean,
        "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * clean,
    }[prediction]  # fmt: skip
    levels = Levels(alpha, prediction)
    assert torch.allclose(levels.clean(predicted, noisy), clean, atol=1e-5)
    assert torch.allclose(levels.predicted(clean, noisy), predicted, atol=1e-5)


@pytest.fixture
def pictures(tmp_path, make):
    start = make().sample([_ask(seed=9)])[0]
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 32:] = 255
    paths = tmp_path / "start.png", tmp_path / "mask.png"
    for path, pixels in zip(paths, (start, mask), strict=True):
        Image.fromarray(pixels).save(path)
    return start, mask > 0, {"init_image": str(paths[0]), "mask_image": str(paths[1])}


@pytest.mark.parametrize("sampler", ["dpmsolver++", "ddim", "unipc"])
def test_masked_renoising_changes_the_inside_alone(make, pictures, sampler):
    start, mask, paths = pictures
    drawn = make(sampler=sampler).sample([_ask(strength=0.9, **paths)])[0]
    assert np.array_equal(drawn[~mask], start[~mask])
    assert np.abs(drawn[mask].astype(int) - start[mask]).mean() > 1
    gentle = make(sampler=sampler).sample([_ask(strength=0.3, **paths)])[0]
    changed = [np.abs(x[mask].astype(int) - start[mask]).mean() for x in (gentle, drawn)]
    assert changed[0] < changed[1]


def test_what_is_kept_shapes_what_is_drawn(make, pictures, tmp_path):
    """The latents outside stay those of the start: another start, another inside."""
    start, mask, paths = pictures
    other = tmp_path / "other.png"
    Image.fromarray(255 - start).save(other)
    first, second = (
        make().sample([_ask(strength=1.0, **{**paths, "init_image": path})])[0]
        for path in (paths["init_image"], str(other))
    )
    inner = np.zeros_like(mask)
    inner[28:36, 52:60] = True
    assert not np.array_equal(first[inner], second[inner])


def test_a_mask_alone_and_a_strength_out_of_range_are_refused(make, pictures):
    _, _, paths = pictures
    with pytest.raises(BadInput, match="mask_image needs init_image"):
        make().sample([_ask(mask_image=paths["mask_image"])])
    with pytest.raises(BadInput, match=r"strength 1\.5"):
        make().sample([_ask(strength=1.5, **paths)])


def test_a_latent_is_free_where_any_pixel_is_masked_and_edges_fade_inside():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:33, 16] = 1
    assert latent_mask(mask, 4)[0, 0].nonzero().tolist() == [[1, 1], [2, 1]]
    mask[..., 16:48, 16:48] = 1
    mixed = blend(torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), mask)[0, 0]
    assert mixed[32, 32] == 1
    assert 0 < mixed[16, 32] < 1
    assert mixed[15, 32] == 0


def test_settings_reach_the_sampler_and_are_checked(monkeypatch):
    monkeypatch.setenv("MEDGEN_GUIDANCE_INTERVAL", "[0.1, 0.8]")
    monkeypatch.setenv("MEDGEN_SAMPLER", "unipc")
    given = Settings()
    assert given.guidance_interval == (0.1, 0.8)
    assert given.sampler == "unipc"
    with pytest.raises(ValidationError, match="lower end"):
        Settings(guidance_interval=(0.9, 0.1))
    with pytest.raises(ValidationError):
        Settings(sampler="euler")

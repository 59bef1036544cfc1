"""Evaluation's encoder: its files, its training, and that it is nobody else's."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.evaluation.encoder import (
    WEIGHTS,
    Bands,
    CompactEncoder,
    bundled_encoder,
    to_pixels,
)
from medgen.evaluation.train_encoder import (
    DISTORTIONS,
    augment,
    distort,
    distort_batch,
    layout,
    name_classes,
    train,
    whitening,
)

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPE = yaml.safe_load((CONFIGS / "encoder_evaluation.yaml").read_text())
SMALL = {
    "name": "small",
    "size": 64,
    "seed": 1,
    "classes": ["a", "b", "c"],
    "model": {
        "trunk": {"stem": 4, "widths": [6, 8], "blocks": [1, 1], "width": 10},
        "width": 8,
    },
}


def pictures(n=4, size=64, seed=0):
    """Smooth random textures, so that blur and noise change them."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((size, size))) for c in coarse])


def test_bundled_encoder_names_its_weights() -> None:
    encoder = bundled_encoder()
    digest = hashlib.sha256((WEIGHTS / "encoder.safetensors").read_bytes()).hexdigest()
    assert encoder.name == f"medgen-encoder-1 ({digest[:8]})"
    assert (WEIGHTS / "encoder.safetensors").stat().st_size <= 2.2e6


def test_bundled_encoder_gives_finite_features_and_logits() -> None:
    encoder = bundled_encoder()
    features = encoder(pictures(5, 100))
    assert features.shape == (5, encoder.width) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert encoder.logits(features).shape == (5, len(encoder.classes))
    assert encoder(pictures(1)[:0]).shape == (0, encoder.width)


def test_features_do_not_depend_on_the_batch() -> None:
    encoder, images = bundled_encoder(), pictures(5)
    alone = np.concatenate([encoder(image[None]) for image in images])
    assert encoder(images, batch=2) == pytest.approx(alone, abs=1e-4)


def test_features_leave_the_real_ones_the_more_the_stronger_the_distortion() -> None:
    encoder = bundled_encoder()
    most, draws = RECIPE["distortions"], np.random.default_rng(0)
    grain = torch.randn((6, 1, 256, 256), generator=torch.Generator().manual_seed(0))
    clean = to_pixels(pictures(6, 256), 256) * 0.5 + 0.1 * grain
    for kind in ("blur", "noise", "downscaling", "compression"):
        distances = []
        for strength in (0.3, 0.6, 1.0):
            spoiled = torch.stack(
                [distort(image, kind, strength, clean, most, draws) for image in clean]
            )
            shift = encoder.net(spoiled) - encoder.net(clean)
            distances.append(float(shift.mean(0).norm()))
        assert 0.2 < distances[0] < distances[1] < distances[2], (kind, distances)


def test_bands_see_noise_in_flat_parts_and_nothing_in_brightness() -> None:
    flat = torch.zeros(1, 3, 64, 64)
    flat[..., 32:] = 0.5
    grain = 0.05 * torch.randn((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    bands = Bands()
    of_flat, of_noisy = bands(flat)[0], bands(flat + grain)[0]
    assert bands(flat + 0.2)[0].numpy() == pytest.approx(of_flat.numpy(), abs=0.02)
    half = Bands.WIDTH // 2
    assert (of_noisy[half:] > of_flat[half:] + 1).all()
    # the last frequency in both directions is blind to the upright edge
    assert of_noisy[half - 1] - of_flat[half - 1] > of_noisy[7] - of_flat[7]


def test_encoder_is_other_than_every_network_of_the_loop_and_of_evaluation() -> None:
    for name in ("reader", "reader_evaluation", "clip"):
        other = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        assert RECIPE["seed"] != other["seed"], name
        assert RECIPE["size"] != other.get("size"), name
        assert RECIPE["fold_salt"] != other.get("fold_salt", ""), name
    written = json.loads((WEIGHTS / "config.json").read_text())
    for key in ("name", "size", "seed"):
        assert written[key] == RECIPE[key], key
    kept = RECIPE["join"]["trunk"] + RECIPE["join"]["bands"]
    assert written["model"] == {**RECIPE["model"], "width": kept}


def test_encoder_comes_back_from_its_files(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = CompactEncoder.build(SMALL)
    encoder.save(tmp_path)
    again = CompactEncoder.load(tmp_path)
    assert again(pictures()) == pytest.approx(encoder(pictures()), abs=0.02)
    assert again.classes == ["a", "b", "c"] and again.name.startswith("small (")


def test_missing_and_damaged_weights_are_one_line(tmp_path) -> None:
    with pytest.raises(BadInput, match="train one"):
        CompactEncoder.load(tmp_path / "nothing")
    CompactEncoder.build(SMALL).save(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"broken")
    with pytest.raises(BadInput, match="no encoder in") as caught:
        CompactEncoder.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 9, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(images) -> None:
    with pytest.raises(BadInput, match="squares"):
        bundled_encoder()(images)


# ---- training


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_distortions_grow_with_their_strength(kind) -> None:
    clean = to_pixels(pictures(3, 128), 128)
    others = to_pixels(pictures(3, 128, seed=9), 128)
    changes = []
    for strength in (0.2, 0.6, 1.0):
        changed = torch.stack(
            [
                distort(c, kind, strength, others, RECIPE["distortions"], np.random.default_rng(i))
                for i, c in enumerate(clean)
            ]
        )
        assert changed.shape == clean.shape and changed.abs().max() <= 1
        changes.append(float((changed - clean).abs().mean()))
    assert 0 < changes[0] < changes[1] < changes[2]


def test_strengths_are_told_for_what_was_distorted_only() -> None:
    clean = to_pixels(pictures(24), 64)
    images, strengths = distort_batch(clean, RECIPE["distortions"], np.random.default_rng(0))
    untouched = (strengths == 0).all(1)
    assert 0 < untouched.sum() < 24
    assert torch.equal(images[untouched], clean[untouched])
    # a foreign patch may be drawn from the image itself, and hardly any blur is none
    for index in torch.where((strengths[:, :-1] > 0.4).any(1))[0]:
        assert (images[index] - clean[index]).abs().max() > 0


def test_augmentation_neither_flips_nor_resamples() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, 20:40, 12:20] = 200
    recipe = {"shift": 6, "gamma": 0.0, "contrast": 0.0, "brightness": 0.0}
    columns = []
    for seed in range(12):
        moved = augment(image, recipe, np.random.default_rng(seed))
        assert len(moved.unique()) == 2
        columns.append(torch.where(moved[0, 0] > 0)[1].float().mean().item())
    assert min(columns) < max(columns) < 32


def test_layout_is_free_of_tone() -> None:
    pixels = to_pixels(pictures(), 64) * 0.5
    grey = layout(pixels)[:, :-3]
    assert layout(pixels * 0.9 + 0.05)[:, :-3].numpy() == pytest.approx(grey.numpy(), abs=0.1)


def test_rare_labels_of_a_source_are_one_class() -> None:
    rows = [{"source": "s", "label": label} for label in "aaabc"]
    assert name_classes(rows, 3) == ["s: a"] * 3 + ["s: other"] * 2


def test_whitening_brings_every_direction_to_variance_one() -> None:
    generator = np.random.default_rng(0)
    features = (
        generator.normal(size=(400, 6))
        * [50, 9, 3, 1, 0.2, 0.05]
        @ np.linalg.qr(generator.normal(size=(6, 6)))[0]
        + 7
    )
    weight, bias = whitening(features, 4)
    even = features @ weight.numpy().T + bias.numpy()
    assert np.cov(even, rowvar=False) == pytest.approx(np.eye(4), abs=1e-3)
    assert even.mean(0) == pytest.approx(np.zeros(4), abs=1e-3)


def test_training_learns_from_the_table_and_leaves_test_rows_alone(tmp_path) -> None:
    images = pictures(40)
    images[::2] //= 4
    rows = ["path,text,modal,label,split,group,source"]
    for index in range(40):
        split = "test" if index >= 36 else "train"
        rows.append(f"{index}.png,t,OCT,{'ab'[index % 2]},{split},g{index},s")
    write_atomic(tmp_path / "table.csv", "\n".join(rows) + "\n")
    spoiled = images.copy()
    spoiled[36:] = 255
    for name, array in (("images", images), ("spoiled", spoiled)):
        np.save(tmp_path / f"{name}.npy", array)
    config = {
        **RECIPE,
        **SMALL,
        "table": tmp_path / "table.csv",
        "steps": 6,
        "batch": 8,
        "least_of_class": 2,
        "average": 0.5,
        "join": {
            "images": 30,
            "distorted": 0.5,
            "trunk": 5,
            "bands": 3,
            "balance": 0.5,
            "regularisation": 0.1,
        },
    }
    found = []
    for name in ("images", "spoiled"):
        out = tmp_path / f"out {name}"
        encoder = train({**config, "images": tmp_path / f"{name}.npy", "out": out})
        assert encoder.classes == ["s: a", "s: b"]
        found.append((out / "encoder.safetensors").read_bytes())
    assert found[0] == found[1]

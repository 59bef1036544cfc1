"""Chest geometry on drawn masks of known size, abstention, and the bundled segmenters."""

import numpy as np
import pytest
import torch

from medgen.errors import BadInput
from medgen.evaluation import chest as evaluation_chest
from medgen.measure.chest import (
    ChestSegmenter,
    bundled_segmenter,
    calipers,
    cardiothoracic_limits,
    cardiothoracic_ratio,
    lung_opacity,
    measure_chest,
    overlay,
)
from medgen.measure.chest_masks import binary_mask_structures, bit_mask_structures, square_mask
from medgen.measure.segmentation import (
    ARCHITECTURES,
    build,
    load_segmenter,
    save_segmenter,
    to_films,
)
from medgen.measure.train_segmenter import segmentation_loss, warp

ROWS, COLUMNS = np.mgrid[0:128, 0:128]


def ellipse(x: float, y: float, width: float, height: float) -> np.ndarray:
    return ((COLUMNS - x) / (width / 2)) ** 2 + ((ROWS - y) / (height / 2)) ** 2 <= 1


def drawn_masks(heart_width: float = 48) -> np.ndarray:
    """Thorax from column 14 to 114 (width 101 pixels), heart around column 70."""
    right, left = ellipse(36, 60, 44, 84), ellipse(92, 60, 44, 84)
    heart = ellipse(68, 78, heart_width, 40) | (
        (np.abs(COLUMNS - 64) < 8) & (ROWS > 24) & (ROWS < 78)
    )
    return np.stack([right, left, heart])


def drawn_film(masks: np.ndarray, right: int = 60, left: int = 60) -> np.ndarray:
    film = np.full((128, 128), 170, dtype=np.uint8)
    film[masks[0]], film[masks[1]], film[masks[2]] = right, left, 200
    film[:6, :] = 0
    return np.repeat(film[..., None], 3, axis=-1)


@pytest.mark.parametrize("heart_width", [36, 44, 52, 60])
def test_ratio_of_drawn_masks(heart_width):
    masks = drawn_masks(heart_width)
    ratio, reason = cardiothoracic_ratio(masks)
    thorax = np.nonzero((masks[0] | masks[1]).any(axis=0))[0]
    heart = np.nonzero(masks[2].any(axis=0))[0]
    assert reason is None
    assert ratio == pytest.approx(np.ptp(heart) / np.ptp(thorax), abs=0.01)
    assert ratio == pytest.approx(heart_width / 101, abs=0.02)


def test_ratio_is_invariant_to_a_shift_and_to_horizontal_scale():
    masks = drawn_masks()
    ratio, _ = cardiothoracic_ratio(masks)
    shifted, _ = cardiothoracic_ratio(np.roll(masks, (7, 5), axis=(1, 2)))
    squashed, _ = cardiothoracic_ratio(masks[:, ::2])
    assert shifted == pytest.approx(ratio, abs=1e-6)
    assert squashed == pytest.approx(ratio, abs=0.02)


def test_wide_upper_mediastinum_does_not_count_as_heart():
    masks = drawn_masks(40)
    plain, _ = cardiothoracic_ratio(masks)
    masks[2] |= (np.abs(COLUMNS - 64) < 34) & (ROWS > 24) & (ROWS < 32)
    widened, _ = cardiothoracic_ratio(masks)
    assert widened == pytest.approx(plain, abs=1e-6)


def test_stray_pixels_do_not_move_the_ratio():
    masks = drawn_masks()
    ratio, _ = cardiothoracic_ratio(masks)
    masks[0, 60:63, 2:5] = True
    masks[2, 100:103, 110:113] = True
    assert cardiothoracic_ratio(masks)[0] == pytest.approx(ratio, abs=1e-6)


def test_probabilities_place_the_edge_between_pixels():
    masks = drawn_masks().astype(np.float32)
    columns = np.nonzero(masks[2, 78])[0]
    masks[2, 78, columns[-1] + 1] = 0.49
    wide = calipers(masks)
    assert wide.heart[1] == pytest.approx(columns[-1] + 1.48, abs=0.02)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_abstains_without_a_structure(channel):
    masks = drawn_masks()
    masks[channel] = False
    ratio, reason = cardiothoracic_ratio(masks)
    assert ratio is None
    assert "not found" in reason


def test_abstains_on_mirrored_fragmented_and_disproportionate_masks():
    masks = drawn_masks()
    assert cardiothoracic_ratio(masks[[1, 0, 2]]) == (None, "lungs not side by side")
    halved = masks.copy()
    halved[0] &= np.abs(ROWS - 60) > 3
    assert "fragments" in cardiothoracic_ratio(halved)[1]
    huge = masks.copy()
    huge[2] = ellipse(64, 70, 110, 90)
    assert "proportion" in cardiothoracic_ratio(huge)[1]
    assert "uncertain" in cardiothoracic_ratio(np.where(masks, 0.6, 0.1))[1]


def test_opacity_tells_the_sides_and_grows_with_density():
    masks = drawn_masks()
    even = lung_opacity(drawn_film(masks), masks)
    assert even["right"] == pytest.approx(even["left"], abs=0.01)
    dense = lung_opacity(drawn_film(masks, right=150), masks)
    denser = lung_opacity(drawn_film(masks, right=180), masks)
    assert dense["left"] < 0.1 < dense["right"] < denser["right"] <= 1


def test_opacity_by_zone():
    masks = drawn_masks()
    film = drawn_film(masks)
    film[76:][masks[1, 76:] & ~masks[2, 76:]] = 170
    readings = lung_opacity(film, masks)
    assert readings["left lower"] > 0.6
    assert readings["left upper"] < 0.1
    assert readings["right lower"] < 0.1


def test_opacity_ignores_exposure():
    masks = drawn_masks()
    film = drawn_film(masks, right=120)
    pale = (film.astype(float) * 0.5 + 40).astype(np.uint8)
    plain, changed = lung_opacity(film, masks), lung_opacity(pale, masks)
    assert changed["right"] == pytest.approx(plain["right"], abs=0.03)


@pytest.mark.parametrize(
    ("view", "age_group", "expected"),
    [
        ("PA", "adult", (0.5, None)),
        ("AP", "adult", None),
        ("AP supine", "adult", None),
        ("PA", "child", None),
        (None, "adult", None),
        ("PA", None, None),
    ],
)
def test_limits_hold_only_where_they_were_set(view, age_group, expected):
    assert cardiothoracic_limits(view, age_group) == expected


def test_abstains_on_blank_and_noise():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    ramp = np.repeat(np.linspace(0, 255, 256, dtype=np.uint8)[None, :, None], 256, axis=0)
    coarse = np.kron(noise[:8, :8], np.ones((32, 32, 1), dtype=np.uint8))
    films = np.stack([np.zeros_like(noise), noise, coarse, np.repeat(ramp, 3, axis=-1)])
    for measured in measure_chest(films):
        assert measured.ratio is None
        assert measured.opacity_right is None
        assert measured.reason


def test_segmenter_repeats_and_does_not_depend_on_the_batch():
    films = np.random.default_rng(1).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    once, again = bundled_segmenter().segment(films), ChestSegmenter.load().segment(films)
    assert once.shape == (3, 3, 128, 128)
    assert np.array_equal(once, again)
    assert np.allclose(bundled_segmenter().segment(films[1:2]), once[1:2], atol=1e-4)
    assert bundled_segmenter().segment(films[:0]).shape == (0, 3, 128, 128)


def test_overlay_draws_without_touching_the_film():
    masks = drawn_masks()
    film = drawn_film(masks)
    before = film.copy()
    drawn = overlay(film, masks)
    assert np.array_equal(film, before)
    assert drawn.shape == film.shape
    assert (drawn != film).any()
    right_contour = (drawn == (255, 80, 80)).all(axis=-1)
    assert np.nonzero(right_contour)[1].max() < 64


def test_weights_survive_a_round_trip(tmp_path):
    config = {"architecture": "unet", "model": {"widths": [8, 16]}, "seed": 3}
    torch.manual_seed(3)
    model = build(config).eval()
    save_segmenter(model, config, tmp_path)
    films = to_films(np.random.default_rng(2).integers(0, 256, (1, 128, 128), dtype=np.uint8))
    assert torch.allclose(model(films), load_segmenter(tmp_path)(films), atol=0.02)


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_unusable_weights_are_bad_input(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadInput, match="segmenter"):
        ChestSegmenter.load(tmp_path)


@pytest.mark.parametrize("shape", [(2, 128, 64, 3), (128, 128)])
def test_films_of_other_shapes_are_bad_input(shape):
    with pytest.raises(BadInput):
        to_films(np.zeros(shape, dtype=np.uint8))


def test_architectures_keep_shape_and_size():
    assert set(ARCHITECTURES) == {"unet", "dilated_residual"}
    models = [
        build({"architecture": "unet", "model": {"widths": [16, 32]}}),
        build(
            {
                "architecture": "dilated_residual",
                "model": {"width": 16, "dilations": [1, 2], "decoder": [16, 8]},
            }
        ),
    ]
    for model in models:
        assert model(torch.zeros(2, 1, 128, 128)).shape == (2, 3, 128, 128)
    bundled = [bundled_segmenter()._model, *evaluation_chest._members()]
    for model in bundled:
        assert sum(value.numel() for value in model.parameters()) <= 700_000
    assert len({type(model) for model in bundled}) == 2


def test_warp_moves_film_and_mask_together():
    generator = torch.Generator().manual_seed(0)
    mask = torch.from_numpy(drawn_masks()[0]).float()
    moved = warp(mask.repeat(4, 2, 1, 1), generator)
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert not torch.allclose(moved[0], moved[1])


def test_warp_never_flips():
    masks = torch.from_numpy(drawn_masks()).float()
    moved = warp(masks.repeat(32, 1, 1, 1), torch.Generator().manual_seed(1))
    columns = torch.arange(128.0)
    centres = (moved.sum(2) * columns).sum(-1) / moved.sum((2, 3)).clamp_min(1)
    assert (centres[:, 0] < centres[:, 1]).all()


def test_unannotated_channels_do_not_teach():
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    targets = torch.ones(1, 3, 8, 8)
    known = torch.tensor([[1.0, 1.0, 0.0]])
    segmentation_loss(logits, targets, known, torch.ones(1, 1, 8, 8)).backward()
    assert logits.grad[:, 2].abs().max() == 0
    assert logits.grad[:, 0].abs().max() > 0


def test_masks_take_the_patients_sides():
    lungs = np.zeros((40, 40), dtype=bool)
    lungs[5:30, 4:16], lungs[5:30, 24:36] = True, True
    structures, known = binary_mask_structures(lungs)
    assert known.tolist() == [True, True, False]
    assert structures[0][:, :20].any() and not structures[0][:, 20:].any()
    joined = lungs.copy()
    joined[10:12] = True
    assert not binary_mask_structures(joined)[1].any()


def test_opaque_lung_left_out_by_annotators_is_taken_from_its_opacity():
    bits = np.zeros((40, 40), dtype=np.uint8)
    bits[5:30, 24:36] = 2
    bits[5:30, 4:16] = 16
    bits[10:30, 16:26] |= 4
    structures, known = bit_mask_structures(bits)
    assert structures[0][:, :16].sum() == 25 * 12
    assert known.all()


def test_square_mask_keeps_labels():
    from PIL import Image

    labels = np.random.default_rng(3).choice([0, 5, 21], (50, 80)).astype(np.uint8)
    squared = square_mask(Image.fromarray(labels), 128)
    assert set(np.unique(squared)) <= {0, 5, 21}
    assert not squared[:24].any() and squared[26:100].any()


def test_evaluation_abstains_on_blank_and_has_its_own_weights():
    films = np.zeros((2, 256, 256, 3), dtype=np.uint8)
    assert evaluation_chest.cardiothoracic_ratios(films) == [None, None]
    assert evaluation_chest.lung_opacities(films) == [None, None]
    noise = np.random.default_rng(4).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    assert not np.allclose(evaluation_chest.segment(noise), bundled_segmenter().segment(noise))

"""Anatomy modules on drawn phantoms whose truth is known."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medgen.measure.anatomy import Anatomy, bounding_box, grey_square, otsu
from medgen.measure.anatomy_by_modality import READERS, measure_chest_film
from medgen.measure.brain import measure_brain
from medgen.measure.chest_ct import hull, measure_chest_ct
from medgen.measure.chest_signs import (
    chest_signs,
    costophrenic_depth,
    fine_structure,
    outline_doubt,
)
from medgen.measure.fundus import measure_fundus
from medgen.measure.optical_coherence import least_cost_path, measure_oct
from medgen.measure.overlay import draw_anatomy, overlay_png

ROWS, COLUMNS = np.mgrid[0:256, 0:256]


def colour(grey, seed=0, noise=3.0):
    noisy = grey + np.random.default_rng(seed).normal(0, noise, grey.shape)
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def ellipse(x, y, half_width, half_height):
    return ((COLUMNS - x) / half_width) ** 2 + ((ROWS - y) / half_height) ** 2 <= 1


def scan(fluid=False, bump=0):
    """A B-scan: dark vitreous, grey retina between a wavy surface and a bright epithelium."""
    surface = 90 + 2 * np.sin(COLUMNS / 60) - bump * np.exp(-(((COLUMNS - 128) / 25) ** 2))
    epithelium = 135 + 0.01 * COLUMNS
    grey = np.full((256, 256), 18.0)
    grey[(surface < ROWS) & (epithelium >= ROWS)] = 110
    grey[(epithelium - 4 < ROWS) & (epithelium + 4 >= ROWS)] = 220
    grey[epithelium + 4 < ROWS] = 60
    if fluid:
        grey[ellipse(128, 118, 30, 8)] = 15
    return colour(grey, noise=6), surface[0], epithelium[0]


def test_retinal_surface_and_epithelium_are_found_to_a_few_pixels() -> None:
    image, surface, epithelium = scan()
    read = measure_oct(image)
    found = {name: np.array(points) * 256 for name, points in read.lines}
    for name, truth in (("retinal surface", surface), ("pigment epithelium", epithelium)):
        columns = found[name][:, 0].astype(int)
        assert np.abs(found[name][:, 1] - truth[columns]).mean() < 4
    assert read.values["retinal_thickness"] == pytest.approx(46 / 256, rel=0.15)


@pytest.mark.parametrize("tear", ["black", "vitreous", "flat"])
def test_torn_band_of_columns_breaks_the_layers(tear) -> None:
    image, *_ = scan()
    whole = measure_oct(image).values
    band = image[:, 150:182]
    if tear == "black":
        band[:] = 0
    elif tear == "vitreous":
        band[:] = band[:64].repeat(4, axis=0)
    else:
        band[:] = band.mean(axis=0, keepdims=True)
    torn = measure_oct(image).values
    for name in ("surface_continuity", "epithelium_continuity"):
        assert whole[name] > 0.97 and torn[name] < 1 - 0.8 * 32 / 256, name


def test_layer_that_leaps_is_not_continuous() -> None:
    image, *_ = scan()
    image[:, 150:200] = np.roll(image[:, 150:200], 30, axis=0)
    assert measure_oct(image).values["surface_continuity"] < 0.97


def test_fluid_and_swelling_are_told() -> None:
    dry, wet = measure_oct(scan()[0]), measure_oct(scan(fluid=True)[0])
    assert dry.values["fluid_share"] < 0.005 < 0.03 < wet.values["fluid_share"]
    left, top, right, bottom = wet.boxes[0][1]
    assert left < 0.5 < right and top < 118 / 256 < bottom
    swollen = measure_oct(scan(bump=30)[0])
    assert swollen.values["thickest_ratio"] > dry.values["thickest_ratio"] + 0.2


def test_least_cost_path_follows_a_cheap_line_and_keeps_its_step() -> None:
    cost = np.ones((20, 30))
    line = (10 + 4 * np.sin(np.arange(30) / 5)).astype(int)
    cost[line, np.arange(30)] = 0
    path = least_cost_path(cost)
    assert np.array_equal(path, line) and np.abs(np.diff(path)).max() <= 2


def slice_of_chest(left_mass=False, lungs=True):
    grey = np.zeros((256, 256))
    grey[ellipse(128, 128, 110, 80)] = 130
    if lungs:
        grey[ellipse(80, 125, 35, 50)] = 10
        grey[ellipse(176, 125, 35, 50)] = 10
    if left_mass:
        grey[ellipse(188, 125, 16, 16)] = 140
    return colour(grey)


def test_lungs_of_a_slice_are_parted_by_side_and_a_mass_fills_its_own() -> None:
    clear, mass = measure_chest_ct(slice_of_chest()), measure_chest_ct(slice_of_chest(True))
    assert clear.values["lung_count"] == 2
    share = 2 * 35 * 50 / (110 * 80)
    assert clear.values["lung_area"] == pytest.approx(share, rel=0.15)
    assert mass.values["filled_left"] > clear.values["filled_left"] + 0.05
    assert abs(mass.values["filled_right"] - clear.values["filled_right"]) < 0.02
    boxes = dict(clear.boxes)
    assert boxes["right lung"][2] < 0.5 < boxes["left lung"][0]


def test_window_that_hides_soft_tissue_abstains_on_lungs() -> None:
    hard = slice_of_chest().astype(float)
    hard[hard > 100] = 8
    hard[ellipse(128, 128, 110, 80) & ~ellipse(128, 128, 104, 74)] = 220
    read = measure_chest_ct(hard.astype(np.uint8))
    assert "lung_area" not in read.values and any("window" in line for line in read.missing)


def test_hull_of_a_line_is_the_line() -> None:
    line = np.zeros((20, 20), dtype=bool)
    line[5, 3:9] = True
    assert np.array_equal(hull(line), line)


def head(lesion=None, angle=0):
    grey = np.zeros((256, 256))
    grey[ellipse(128, 128, 80, 105)] = 170
    grey[ellipse(128, 128, 72, 97)] = 20
    grey[ellipse(128, 128, 68, 93)] = 90
    for x in (108, 148):
        grey[ellipse(x, 120, 9, 26)] = 35
    if lesion:
        grey[ellipse(*lesion, 12, 12)] = 160
    return colour(ndimage.rotate(grey, angle, reshape=False, order=1))


@pytest.mark.parametrize(("x", "side"), [(85, -1), (170, 1)])
def test_lesion_makes_its_half_the_odd_one(x, side) -> None:
    healthy, ill = measure_brain(head()), measure_brain(head((x, 150)))
    assert ill.values["asymmetry"] > healthy.values["asymmetry"] + 0.5
    assert ill.values["asymmetry_side"] == side


def test_midline_turns_with_the_head() -> None:
    (_, upright), (_, turned) = (measure_brain(head(angle=a)).lines[0] for a in (0, 12))
    assert abs(upright[0][0] - upright[1][0]) < 0.03
    (x0, y0), (x1, y1) = turned
    top, bottom = ((x0, y0), (x1, y1)) if y0 < y1 else ((x1, y1), (x0, y0))
    # `ndimage.rotate` by 12 degrees turns counter-clockwise: the top moves to the left.
    lean = np.degrees(np.arctan2(bottom[0] - top[0], bottom[1] - top[1]))
    assert lean == pytest.approx(12, abs=4)


def test_unlike_halves_have_no_midline() -> None:
    grey = np.where(ellipse(128, 128, 80, 105), 40.0 + 0.8 * COLUMNS, 0)
    read = measure_brain(colour(grey))
    assert "asymmetry" not in read.values
    assert any(line.startswith("midline") for line in read.missing)


def photograph(disc=(200, 128), haze=1.0, squash=False, spots=()):
    """A fundus: orange field, a bright disc, dark vessels that start at it."""
    field = ellipse(128, 128, 120, 120)
    red = np.where(field, 150.0, 0)
    green = np.where(field, 80.0, 0)
    if disc:
        near = ellipse(*disc, 17, 20)
        red[near], green[near] = 240, 200
        for rise in (-0.9, -0.45, 0.45, 0.9):
            line = np.abs((ROWS - disc[1]) - rise * (disc[0] - COLUMNS)) < 2.2
            green[line & field] = 35
    for spot in spots:
        green[ellipse(*spot, 4, 4)] = 170
    if haze < 1:
        green = np.where(field, ndimage.gaussian_filter(green, 5) * haze + 80 * (1 - haze), 0)
    image = np.stack([red, green, green * 0.5], axis=2).clip(0, 255).astype(np.uint8)
    if squash:
        narrow = Image.fromarray(image).resize((160, 256))
        image = np.zeros((256, 256, 3), np.uint8)
        image[:, 48:208] = np.asarray(narrow)
    return image


@pytest.mark.parametrize("squash", [False, True])
def test_disc_tells_the_eye_even_squashed(squash) -> None:
    right = measure_fundus(photograph((200, 128), squash=squash))
    left = measure_fundus(photograph((56, 128), squash=squash))
    assert right.values["disc_count"] == left.values["disc_count"] == 1
    assert (right.values["eye_side"], left.values["eye_side"]) == (1, -1)
    assert right.values["disc_x"] == pytest.approx((200 - 8) / 240, abs=0.04)


def test_two_discs_are_counted_and_a_central_one_tells_no_eye() -> None:
    doubled = photograph((200, 128))
    doubled[:, :128] = photograph((200, 128))[:, :127:-1]
    assert measure_fundus(doubled).values["disc_count"] == 2
    central = measure_fundus(photograph((128, 128)))
    assert "eye_side" not in central.values
    assert any(line.startswith("eye side") for line in central.missing)


def test_haze_and_spots_change_their_own_values() -> None:
    clear, hazy = measure_fundus(photograph()), measure_fundus(photograph(haze=0.3))
    assert hazy.values["fine_contrast"] < 0.5 * clear.values["fine_contrast"]
    spotted = measure_fundus(photograph(spots=[(90, 100), (110, 150), (80, 160)]))
    assert spotted.values["bright_spots"] > clear.values["bright_spots"] + 0.002


def lung_masks(blunted=False):
    masks = np.zeros((3, 128, 128), dtype=np.float32)
    rows, columns = np.mgrid[0:128, 0:128]
    for channel, middle in ((0, 38), (1, 90)):
        lung = ((columns - middle) / 20) ** 2 + ((rows - 60) / 42) ** 2 <= 1
        dome = ((columns - middle) / 22) ** 2 + ((rows - 104) / 30) ** 2 <= 1
        masks[channel] = lung & ~dome
        lateral = columns < middle - 11 if channel == 0 else columns > middle + 11
        corner = lateral & (rows > 60) & (rows < 102) & (np.abs(columns - middle) < 19)
        if not (blunted and channel == 0):
            masks[channel] = np.maximum(masks[channel], corner & ~dome)
    masks[2] = ((columns - 66) / 20) ** 2 + ((rows - 78) / 22) ** 2 <= 1
    return masks


def test_blunted_angle_is_shallower_than_a_sharp_one() -> None:
    sharp, blunt = chest_signs(lung_masks()), chest_signs(lung_masks(blunted=True))
    assert sharp.values["lung_count"] == 2 and sharp.missing == []
    right, left = "costophrenic_depth_right", "costophrenic_depth_left"
    assert blunt.values[right] < sharp.values[right] - 0.03
    assert blunt.values[left] == pytest.approx(sharp.values[left])
    assert {name for name, _ in sharp.lines} == {"heart width", "thorax width"}


def test_costophrenic_depth_of_a_flat_lung_is_nothing() -> None:
    flat = np.zeros((40, 40), dtype=bool)
    flat[5:30, 5:25] = True
    assert costophrenic_depth(flat) == 0


def test_missing_lung_is_counted_and_named() -> None:
    masks = lung_masks()
    masks[1] = 0
    read = chest_signs(masks)
    assert read.values == {"lung_count": 1.0, "lung_outline_doubt": 0.0}
    assert read.missing == ["lungs: left lung not found"]


def test_lungs_that_fade_into_their_surroundings_are_in_doubt() -> None:
    crisp = lung_masks()
    faded = ndimage.gaussian_filter(crisp, (0, 6, 6))
    assert outline_doubt(crisp) == 0
    assert outline_doubt(faded) > 0.3
    halves = np.zeros((3, 10, 10))
    halves[0, :, :5], halves[1, :, 8:] = 0.9, 0.3
    assert outline_doubt(halves) == pytest.approx(20 / 50)


def test_fine_structure_is_what_a_blur_takes_from_the_lungs_alone() -> None:
    lungs = lung_masks()[:2].any(axis=0)
    grain = np.random.default_rng(0).normal(0, 10, (256, 256))
    film = (120 + grain).astype(np.uint8)
    hazy = ndimage.gaussian_filter(film, 3)
    outside = np.where(np.kron(lungs, np.ones((2, 2), bool)), 120, film).astype(np.uint8)
    assert fine_structure(film, lungs) == pytest.approx(10, abs=1)
    assert fine_structure(hazy, lungs) < 1.5
    assert fine_structure(outside, lungs) < 1.5
    assert fine_structure(film, np.zeros((128, 128), bool)) is None


@pytest.mark.parametrize("modality", sorted(READERS))
@pytest.mark.parametrize("kind", ["black", "white", "noise", "dot"])
def test_nothing_to_read_is_no_crash(modality, kind) -> None:
    images = {
        "black": np.zeros((256, 256, 3), np.uint8),
        "white": np.full((256, 256, 3), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8),
        "dot": np.zeros((256, 256, 3), np.uint8),
    }
    images["dot"][100:103, 100:103] = 255
    read = READERS[modality](images[kind])
    assert all(np.isfinite(value) for value in read.values.values())
    if kind == "black":
        assert read.missing
    assert draw_anatomy(images[kind], read).shape == (512, 512, 3)


def test_chest_film_gives_everything_in_one_reading() -> None:
    read = measure_chest_film(np.zeros((256, 256, 3), np.uint8))
    assert "cardiothoracic_ratio" not in read.values and "ap_probability" in read.values


def test_overlay_draws_what_was_read_and_says_what_it_is() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:40, 20:40] = True
    read = Anatomy(
        outlines={"lung": mask},
        lines=[("width", [(0.2, 0.9), (0.8, 0.9)])],
        boxes=[("box", bounding_box(mask))],
    )
    grey = np.full((256, 256, 3), 90, np.uint8)
    drawn = draw_anatomy(grey, read)
    changed = np.abs(drawn.astype(int) - 90).max(axis=2) > 20
    assert changed[int(0.9 * 512), 256] and changed[160, 200] and not changed[400, 60]
    assert b"Not for diagnosis" in overlay_png(grey, read)


def test_small_tools() -> None:
    assert grey_square(np.full((64, 64, 3), 7, np.uint8), 32).mean() == pytest.approx(7)
    level = otsu(np.array([10.0] * 50 + [200.0] * 50))
    assert 10 <= level < 200

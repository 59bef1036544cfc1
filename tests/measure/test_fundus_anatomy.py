"""Disc, cup, macula and dark spots on drawn fundi whose truth is known."""

import numpy as np
import pytest
from drawn_fundi import COLUMNS, ROWS, SIDE, ellipse, eye

from medgen.measure.fundus import measure_fundus
from medgen.measure.overlay import draw_anatomy


def in_frame(value):
    return 8 + value * SIDE


@pytest.mark.parametrize("mirrored", [False, True])
def test_macula_is_found_where_it_was_drawn(mirrored) -> None:
    image = eye()[:, ::-1] if mirrored else eye()
    read = measure_fundus(np.ascontiguousarray(image))
    place = (256 - 108 if mirrored else 108, 134)
    assert in_frame(read.values["macula_x"]) == pytest.approx(place[0], abs=4)
    assert in_frame(read.values["macula_y"]) == pytest.approx(place[1], abs=4)
    assert read.values["macula_eye"] == read.values["eye_side"] == (-1 if mirrored else 1)
    assert read.values["disc_diameter"] == pytest.approx(30 / SIDE, rel=0.15)
    assert read.values["macula_distance"] == pytest.approx(np.hypot(82, 10) / 30, rel=0.15)
    assert read.values["macula_drop"] == pytest.approx(10 / 30, abs=0.2)
    left, top, right, bottom = dict(read.boxes)["macula"]
    assert left < place[0] / 256 < right and top < place[1] / 256 < bottom


def test_macula_on_the_wrong_side_of_a_disc_is_told_there() -> None:
    read = measure_fundus(eye(disc=(120, 124), macula=(196, 130)))
    assert read.values["macula_eye"] == -1 and "eye_side" not in read.values
    assert in_frame(read.values["macula_x"]) == pytest.approx(196, abs=4)


@pytest.mark.parametrize("kind", ["no macula", "shaded rim", "no disc"])
def test_no_macula_is_told_without_one(kind) -> None:
    shade = np.clip(0.4 + COLUMNS / 200, 0, 1) if kind == "shaded rim" else None
    image = eye(macula=None, shade=shade) if kind != "no disc" else eye(disc=None)
    read = measure_fundus(image)
    assert not {name for name in read.values if name.startswith("macula")}
    if kind == "no disc":
        assert "disc_count" not in read.values
    else:
        assert any(line.startswith("macula") for line in read.missing)


def test_cup_is_measured_against_the_disc_also_where_squashed() -> None:
    small, large = (measure_fundus(eye(cup=cup)).values["cup_to_disc"] for cup in (5, 11))
    assert small == pytest.approx(5 / 15, abs=0.12) and large == pytest.approx(11 / 15, abs=0.12)
    tall = measure_fundus(eye(cup=8, tall=1.25)).values["cup_to_disc"]
    assert tall == pytest.approx(8 / 15, abs=0.12)


def test_disc_without_a_clear_outline_tells_no_cup() -> None:
    torn = eye()
    band = ellipse(190, 124, 15) & (np.abs(ROWS - 124 - (COLUMNS - 190)) < 7)
    torn[band] = (120, 70, 35)
    read = measure_fundus(torn)
    if "disc_x" in read.values:
        assert "cup_to_disc" not in read.values and "macula_distance" not in read.values


@pytest.mark.parametrize(("second", "count"), [((70, 120), 2), (None, 1)])
def test_second_disc_without_vessels_is_counted(second, count) -> None:
    read = measure_fundus(eye(second=second, macula=None))
    assert read.values["disc_count"] == count
    assert len([name for name, _ in read.boxes if name == "optic disc"]) == count


@pytest.mark.parametrize("kind", ["dim", "streak", "speck"])
def test_what_is_unlike_a_disc_is_no_second_one(kind) -> None:
    image = eye(macula=None)
    where = ellipse(70, 120, *{"dim": (15, 15), "streak": (5, 40), "speck": (4, 4)}[kind])
    image[where] = (165, 95, 45) if kind == "dim" else (235, 200, 90)
    assert measure_fundus(image).values["disc_count"] == 1


def test_dark_spots_are_counted_off_macula_and_vessels() -> None:
    clear = measure_fundus(eye()).values["dark_spots"]
    spots = [(80, 80), (100, 190), (60, 150)]
    read = measure_fundus(eye(spots=spots))
    assert clear < 0.0005
    drawn = len(spots) * np.pi * 3**2 / (np.pi * 120**2)
    assert drawn < read.values["dark_spots"] < 2.5 * drawn
    assert all(read.outlines["dark spots"][y, x] for x, y in spots)
    assert draw_anatomy(eye(), read).shape == (512, 512, 3)

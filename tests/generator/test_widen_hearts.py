"""Widened hearts on a drawn film whose truth is known."""

import csv

import numpy as np
import pytest

from medgen.generator import widen_hearts
from medgen.generator.widen_hearts import widened
from medgen.measure.chest import ChestMeasurement

ROWS, COLUMNS = np.mgrid[0:256, 0:256]
MIDDLE, LEVEL, WHOLE = 132, 156, 170


def ellipse(x, y, half_width, half_height):
    return ((COLUMNS - x) / half_width) ** 2 + ((ROWS - y) / half_height) ** 2 <= 1


def film_and_masks(middle=MIDDLE):
    lungs = [ellipse(x, 120, 44, 84) for x in (76, 184)]
    heart = ellipse(middle, LEVEL, 36, 40)
    film = np.full((256, 256), 120, np.uint8)
    film[lungs[0] | lungs[1]] = 40
    film[heart] = 200
    film[:, :12] = 90  # the wall outside
    masks = np.stack([lungs[0] & ~heart, lungs[1] & ~heart, heart]).astype(np.float32)
    return np.repeat(film[..., None], 3, axis=2), masks[:, ::2, ::2]


def width(film):
    return int((film[WHOLE, :, 0] > 160).sum())


def test_a_heart_grows_and_the_chest_wall_stays():
    film, masks = film_and_masks()
    large = widened(film, masks, 0.47)
    assert large.shape == film.shape and large.dtype == np.uint8
    assert width(large) == pytest.approx(width(film) * 0.47 / (72 / 196), abs=3)
    assert np.array_equal(large[:, :31], film[:, :31])
    assert np.array_equal(large[:, 230:], film[:, 230:])
    assert np.abs(large[:20].astype(int) - film[:20]).max() == 0
    # The middle of the heart is where it was.
    columns = np.flatnonzero(large[WHOLE, :, 0] > 160)
    assert columns.mean() == pytest.approx(MIDDLE, abs=1.5)


def test_what_cannot_be_widened_is_left():
    film, masks = film_and_masks()
    assert widened(film, masks, 0.3) is None  # smaller than it is
    assert widened(film, masks, 0.7) is None  # more than MOST
    assert widened(film, np.zeros_like(masks), 0.47) is None
    assert widened(*film_and_masks(middle=172), 0.62) is None  # into the chest wall
    assert widened(*film_and_masks(middle=172), 0.47) is not None


def test_a_table_gets_its_widened_films_behind_it(tmp_path, monkeypatch):
    film, masks = film_and_masks()
    data, names = tmp_path / "data", ["path", "text", "modal", "label", "split", "group", "source"]
    data.mkdir()
    kinds = [("radiography_adult", "normal", "train")] * 3
    kinds += [("radiography_adult", "normal", "test"), ("radiography_adult", "COVID-19", "train")]
    with (data / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        for place, (source, label, split) in enumerate(kinds):
            writer.writerow([f"{place}.png", "", "Chest X-ray", label, split, f"g{place}", source])
    views = tmp_path / "views.csv"
    views.write_text("path,view\n0.png,PA\n")
    np.save(tmp_path / "pixels.npy", np.stack([film] * len(kinds)))

    class Segmenter:
        def segment(self, films):
            return np.stack([masks] * len(films))

        def measure(self, films):
            measured = [ChestMeasurement(width(one) / 196, 0.3, 0.25) for one in films]
            return [*measured[:-1], ChestMeasurement(None, None, None, "lungs not found")]

    monkeypatch.setattr(widen_hearts, "bundled_segmenter", Segmenter)
    monkeypatch.setattr(widen_hearts, "fold", lambda row: row["split"])
    monkeypatch.setattr(widen_hearts, "WANTED", (0.5, 0.5))
    monkeypatch.setattr(widen_hearts, "KEPT", (0.45, 0.55))
    out = tmp_path / "out"
    widen_hearts.main(str(data), str(tmp_path / "pixels.npy"), str(views), str(out))
    with (out / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows[5:]] == ["widened/0.png", "widened/1.png"]
    assert rows[5]["group"] == "g0" and rows[5]["split"] == "train"
    pixels = np.load(out / "pixels.npy")
    assert len(pixels) == len(rows) == 7
    assert np.array_equal(pixels[0], film) and width(pixels[5]) > width(film)
    with (out / "widened.csv").open(newline="") as stream:
        told = list(csv.DictReader(stream))
    assert [row["view"] for row in told] == ["PA", ""]
    assert 0.45 < float(told[0]["cardiothoracic_ratio"]) < 0.55

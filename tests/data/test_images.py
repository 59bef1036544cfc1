import numpy as np
import pytest
from PIL import Image

from medgen.data import images
from medgen.data.images import load_image, load_square, save_synthetic_png, write_atomic
from medgen.data.splits import is_validation
from medgen.errors import BadInput


def test_a_saved_image_says_that_it_is_synthetic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    path = save_synthetic_png(tmp_path / "a.png", pixels, {"Prompt": "überprüft <b>"})
    with Image.open(path) as image:
        assert image.text["Synthetic"] == "YES"
        assert "Not for diagnosis" in image.text["Description"]
        assert image.text["Prompt"] == "überprüft <b>"
        assert np.array_equal(np.asarray(image), pixels)


def test_squaring_keeps_proportions_and_pads_with_black(tmp_path):
    Image.new("L", (40, 20), 255).save(tmp_path / "wide.png")
    square = load_square(tmp_path / "wide.png", 16)
    assert square.shape == (16, 16, 3)
    assert square[:4].max() == 0 and square[12:].max() == 0
    assert square[4:12].min() == 255


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("L", (5, 4), 200).convert("RGB").convert(mode.replace("LA", "L")).convert(mode).save(
        path
    )
    assert load_image(path).mode == "RGB"


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 4095]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(load_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 255]


def test_unusable_files_are_one_line_that_names_them(tmp_path, monkeypatch):
    whole = tmp_path / "whole.png"
    Image.new("L", (64, 64)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    (tmp_path / "text.png").write_text("no image")
    for name in ("missing.png", "cut.png", "text.png"):
        with pytest.raises(BadInput, match=name) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(BadInput, match="over the limit"):
        load_image(whole)


def test_a_failed_write_leaves_the_old_file_and_no_scrap(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.os, "fsync", full)
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_the_validation_fold_is_fixed_and_about_its_share():
    groups = [f"group{number}" for number in range(4000)]
    share = sum(map(is_validation, groups)) / len(groups)
    assert 0.06 < share < 0.10
    assert is_validation("group0") == is_validation("group0")

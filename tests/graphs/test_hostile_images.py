"""Hostile images: each is answered or refused in one line, and the rest of the folder goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hostile import write_hostile

from medgen.data.images import MAX_PIXELS
from medgen.errors import BadInput
from medgen.graphs.verify import verify

REFUSED = {
    "truncated.jpg",
    "truncated.png",
    "empty.png",
    "text.png",
    "signature.png",
    "bad_header.tif",
    "bad_gif.gif",
    "bad_webp.webp",
    "bad_bmp.bmp",
    "bad_dicom.dcm",
    "bomb.png",
    "text_bomb.png",
}
# A bright square on black: nothing in its exposure, noise or colour says that it is no scan.
GREY_SQUARE = {"not_a_number.tif"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_hostile(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_every_hostile_image_of_a_folder_is_answered(folder: Path) -> None:
    results = list(verify(folder))
    assert len(results) == len(list(folder.iterdir()))
    for result in results:
        name = Path(result.path).name
        assert (result.error is not None) == (name in REFUSED), name
        if result.error is None:
            assert result.accepted is not True, name
            if name not in GREY_SQUARE:
                # No medical image: it is told so, and nothing is found in it.
                assert result.accepted is False and result.rejections, name
                assert result.findings == [], name
        else:
            assert "\n" not in result.error and name in result.error, name


@pytest.mark.filterwarnings("ignore")
def test_bombs_are_refused_before_they_are_unpacked(folder: Path) -> None:
    started = time.monotonic()
    for name in ("bomb.png", "text_bomb.png"):
        assert (folder / name).stat().st_size < 250_000
        with pytest.raises(BadInput, match=name):
            verify(folder / name, modality="cxr")
    assert time.monotonic() - started < 5


@pytest.mark.filterwarnings("ignore")
def test_image_just_over_the_limit_is_refused_with_its_size(tmp_path: Path) -> None:
    from hostile import bomb_png

    side = int(MAX_PIXELS**0.5) + 8
    with pytest.raises(BadInput, match=f"{side}x{side} pixels, over the limit"):
        verify(bomb_png(tmp_path / "large.png", side), modality="cxr")

"""The region at fault: where the structure lies, and nothing where no lung can be believed."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.agents.verifier.regions import region_at_fault
from medgen.measure import chest

SIZE = 256


class Known:
    """Stands for the segmenter where the masks are known."""

    def __init__(self, masks: np.ndarray) -> None:
        self.masks = masks

    def segment(self, images: np.ndarray) -> np.ndarray:
        return np.repeat(self.masks[None], len(images), axis=0)


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    rows, columns = np.mgrid[:128, :128]
    lungs = [((rows - 60) / 38) ** 2 + ((columns - at) / 16) ** 2 < 1 for at in (38, 90)]
    heart = ((rows - 78) / 20) ** 2 + ((columns - 66) / 22) ** 2 < 1
    known = np.stack([*lungs, heart]).astype(np.float32)
    monkeypatch.setattr("medgen.agents.verifier.regions.bundled_segmenter", lambda: Known(known))
    return known


FILM = np.zeros((SIZE, SIZE, 3), np.uint8)


def test_the_heart_has_room_to_grow_and_a_lung_is_its_own_side(masks: np.ndarray) -> None:
    twice = np.kron(masks, np.ones((1, 2, 2))) > 0
    heart = region_at_fault(FILM, "cardiothoracic_ratio")
    assert heart is not None
    assert heart[twice[2]].all()
    assert heart.sum() > 1.4 * twice[2].sum()
    right = region_at_fault(FILM, "opacity_right")
    assert right is not None
    assert right[twice[0]].all()
    assert not (right & twice[1]).any()


def test_what_has_no_place_has_no_region(masks: np.ndarray) -> None:
    assert region_at_fault(FILM, "tumor_size") is None
    masks[0] = 0
    assert region_at_fault(FILM, "opacity_right") is None


def test_a_picture_without_lungs_has_no_region() -> None:
    assert chest.bundled_segmenter() is not None
    assert region_at_fault(FILM, "cardiothoracic_ratio") is None

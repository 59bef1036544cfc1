"""Measuring images from files: one record an image, in order, against the user's words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from phantom import PhantomPanel, phantom_collaborators
from PIL import Image

from medgen.errors import BadInput
from medgen.graphs.verify import image_files, verify


def film(path: Path, height: int = 300, width: int = 200) -> Path:
    values = np.random.default_rng(1).integers(0, 255, (height, width), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_folder_is_measured_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        film(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    panel = PhantomPanel()
    prompt = "cardiomegaly, chest X-ray"
    results = list(verify(tmp_path, prompt, collaborators=phantom_collaborators(panel=panel)))
    assert [Path(result.image).name for result in results] == ["a.jpg", "b.png"]
    assert all(result.prompt == prompt for result in results)
    assert [finding.finding for finding in results[0].critique.findings] == ["cardiomegaly"]
    assert [plan.modality for plan in panel.plans] == ["Chest X-ray"] * 2


def test_modality_alone_asks_for_no_finding(tmp_path: Path) -> None:
    panel = PhantomPanel()
    minds = phantom_collaborators(panel=panel)
    (result,) = verify(film(tmp_path / "a.png"), modality="cxr", collaborators=minds)
    assert panel.plans[0].modality == "Chest X-ray"
    assert result.prompt is None and result.critique.findings == []


def test_what_cannot_be_measured_is_bad_input(tmp_path: Path) -> None:
    minds = phantom_collaborators()
    with pytest.raises(BadInput, match="no image in"):
        image_files(tmp_path)
    with pytest.raises(BadInput, match=r"missing\.png"):
        verify(tmp_path / "missing.png", modality="cxr", collaborators=minds)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n rest lost")
    with pytest.raises(BadInput, match=r"broken\.png"):
        verify(broken, modality="cxr", collaborators=minds)
    with pytest.raises(BadInput, match="sonar"):
        verify(film(tmp_path / "a.png"), modality="sonar of cats", collaborators=minds)

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
    assert [Path(result.path).name for result in results] == ["a.jpg", "b.png"]
    assert all(result.prompt == prompt for result in results)
    assert [finding.finding for finding in results[0].findings] == ["cardiomegaly"]
    assert [plan.modality for plan in panel.plans] == ["Chest X-ray"] * 2


def test_modality_alone_asks_for_no_finding(tmp_path: Path) -> None:
    panel = PhantomPanel()
    minds = phantom_collaborators(panel=panel)
    (result,) = verify(film(tmp_path / "a.png"), modality="cxr", collaborators=minds)
    assert panel.plans[0].modality == "Chest X-ray"
    assert result.prompt is None and result.findings == []


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


def test_table_rows_are_asked_for_their_own_texts_and_bad_rows_are_answered(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "d.png"):
        film(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    table = tmp_path / "table.csv"
    table.write_text(
        "path,text,modal\n"
        'b.png,"cardiomegaly, chest X-ray",Chest X-ray\n'
        "c.png,cardiomegaly,Chest X-ray\n"
        "a.png,no cardiomegaly,Chest X-ray\n"
        "d.png,cardiomegaly,sonar of cats\n"
    )
    panel = PhantomPanel()
    results = list(verify(table, collaborators=phantom_collaborators(panel=panel)))
    assert [Path(result.path).name for result in results] == ["b.png", "c.png", "a.png", "d.png"]
    assert [result.error is None for result in results] == [True, False, True, False]
    assert "c.png" in (results[1].error or "") and "sonar" in (results[3].error or "")
    asked = [result.findings[0].status for result in results if result.findings]
    assert asked == ["present", "absent"]
    assert results[0].prompt == "cardiomegaly, chest X-ray"


def test_prompt_beside_a_table_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("path,text,modal\n")
    minds = phantom_collaborators()
    with pytest.raises(BadInput, match="leave --prompt out"):
        verify(tmp_path / "table.csv", "cardiomegaly", collaborators=minds)
    with pytest.raises(BadInput, match="no row"):
        verify(tmp_path / "table.csv", collaborators=minds)


def test_printed_line_has_the_contracts_fields_and_no_second_copy(tmp_path: Path) -> None:
    minds = phantom_collaborators()
    (result,) = verify(film(tmp_path / "a.png"), "cardiomegaly, chest X-ray", collaborators=minds)
    line = result.model_dump(mode="json")
    assert {
        "path",
        "modality",
        "findings",
        "quality",
        "nearest_training",
        "accepted",
        "corrections",
    } <= set(line)
    assert line["modality"] == {"predicted": "Chest X-ray", "confidence": 1.0}
    assert Path(line["path"]).is_absolute() and "critique" not in line
    assert result.critique is not None


@pytest.mark.parametrize("modality", ["Chest X-ray", "Brain MRI", "Chest CT", "Fundus", "OCT"])
def test_overlay_is_written_for_every_modality(tmp_path: Path, modality: str) -> None:
    minds = phantom_collaborators()
    path = film(tmp_path / "a.png")
    (result,) = verify(path, modality=modality, overlay=tmp_path / "drawn", collaborators=minds)
    assert result.overlay is not None
    with Image.open(result.overlay) as drawn:
        assert drawn.size == (512, 512) and "Not for diagnosis" in drawn.text["Description"]
    assert [entry.name for entry in (tmp_path / "drawn").iterdir()] == ["00000_a.png"]

"""The card of a dataset: its figures are the manifest's, and the tools of the field read it."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataset_samples import RATIO, write_dataset

from medgen.data.dataset_rows import read_rows, write_manifest
from medgen.errors import BadInput
from medgen.graphs.datasheet import write_card


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = write_dataset(tmp_path_factory.mktemp("card") / "small")
    write_card(folder)
    return folder


def test_the_datasheet_says_what_the_manifest_holds(card):
    for text in ((card / "datasheet.md").read_text(), (card / "datasheet.html").read_text()):
        assert "6 images of 7 tasks in 2" in text
        assert RATIO in text
        assert "Not checked in Chest X-ray: pleural effusion" in text
        assert "cardiomegaly: contradicted" in text
        assert "Diagnosis, triage, treatment" in text
        assert "not the bundled ones" in text
        assert str(card) not in text


def test_pictures_are_beside_the_text_and_inside_the_page(card):
    text = (card / "datasheet.md").read_text()
    for name in ("samples.png", "balance.png", "properties.png", "nearness.png"):
        assert f"(datasheet/{name})" in text
        assert Image.open(card / "datasheet" / name).width > 100
    page = (card / "datasheet.html").read_text()
    assert page.count('src="data:image/png;base64,') == 4
    assert "http://" not in page.replace("http://mlcommons.org", "")
    assert Image.open(card / "datasheet" / "samples.png").text["Synthetic"] == "YES"


def test_written_again_it_is_the_same_bytes(card):
    def files():
        found = [*card.glob("datasheet*"), *card.glob("datasheet/*"), card / "croissant.json"]
        return {path: path.read_bytes() for path in found if path.is_file()}

    before = files()
    write_card(card)
    assert files() == before
    assert len(before) == 7


def test_bundled_weights_bring_their_sources_and_terms(tmp_path):
    import medgen.generator
    from medgen.generator.compact import fingerprint_folder

    folder = write_dataset(tmp_path / "small")
    weights = Path(medgen.generator.__file__).parent / "weights" / "compact"
    known = fingerprint_folder(weights)
    rows = [row.model_copy(update={"generator": known}) for row in read_rows(folder)]
    write_manifest(folder, rows)
    write_card(folder)
    text = (folder / "datasheet.md").read_text()
    assert "CC BY-NC-SA 4.0" in text
    assert "| Fundus | HEI-MED (Giancardo et al. 2012) | 127 |" in text
    assert "<td>HEI-MED (Giancardo et al. 2012)</td>" in (folder / "datasheet.html").read_text()


def test_words_of_a_prompt_cannot_break_the_page(tmp_path):
    folder = write_dataset(tmp_path / "small")
    rows = [row.model_copy(update={"label": "<script>|x"}) for row in read_rows(folder)]
    write_manifest(folder, rows)
    write_card(folder)
    assert "<script>" not in (folder / "datasheet.html").read_text()
    assert "<script>\\|x" in (folder / "datasheet.md").read_text()


def test_mlcroissant_reads_rows_and_images(card, monkeypatch):
    mlcroissant = pytest.importorskip("mlcroissant")
    monkeypatch.chdir(card)
    found = mlcroissant.Dataset(jsonld="croissant.json")
    assert not found.metadata.issues.errors
    assert not found.metadata.issues.warnings
    records = list(found.records("manifest"))
    assert len(records) == 7
    assert records[1]["manifest/label"] == b"cardiomegaly; pleural effusion"
    pictures = {one["pictures/file"]: one["pictures/image"] for one in found.records("pictures")}
    assert len(pictures) == 6
    assert pictures[b"task-000.png"].size == (32, 32)
    told = json.loads((card / "croissant.json").read_text())
    assert all(field["description"] for field in told["recordSet"][0]["field"])


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no dataset in"):
        write_card(tmp_path)
    assert list(tmp_path.iterdir()) == []

"""Exports are read back by the tools that they are for, and are whole or not there."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from dataset_samples import pixels, write_dataset
from PIL import Image

from medgen.data.check import check_table
from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import read_rows
from medgen.data.exports import webdataset
from medgen.data.exports.export import FORMATS, export
from medgen.data.exports.items import items
from medgen.data.formats import read_rows as read_table
from medgen.errors import BadInput

datasets = pytest.importorskip("datasets")
CLASSES = [
    "chest_x_ray-cardiomegaly+pleural_effusion",
    "chest_x_ray-normal",
    "fundus-normal",
]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def split_folder(folder):
    """The dataset with its last film in a test split."""
    names = sorted({row.id for row in read_rows(folder)})
    lines = [f"{name},{'test' if name.endswith('3') else 'train'}\n" for name in names]
    (folder / "splits.csv").write_text("id,split\n" + "".join(lines))
    return folder


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"chexgenbench"}))
def test_every_format_has_the_same_bytes_again_and_says_what_it_is(folder, tmp_path, format):
    one = export(open_dataset(folder), format, tmp_path / "one")
    export(open_dataset(folder), format, tmp_path / "two")
    assert one.images == 6
    assert files(tmp_path / "one") == files(tmp_path / "two")
    readme = (tmp_path / "one" / "README.md").read_text()
    assert readme.startswith("---\nlicense: cc-by-nc-sa-4.0")
    assert "Not for diagnosis" in readme


def test_minims_table_is_a_table_of_readable_images(folder, tmp_path):
    export(open_dataset(folder), "minim-csv", tmp_path / "out")
    rows = list(read_table(tmp_path / "out" / "minim.csv"))
    assert [list(row) for row in rows] == [["path", "text", "modal"]] * 6
    assert rows[1]["text"] == "cardiomegaly; pleural effusion, Chest X-ray"
    assert check_table(tmp_path / "out" / "medgen.csv").counts == {}


def test_imagefolder_is_read_by_datasets_and_torchvision(split_folder, tmp_path):
    from torchvision.datasets import ImageFolder

    out = tmp_path / "out"
    told = export(open_dataset(split_folder), "imagefolder", out)
    assert told.splits == {"test": 1, "train": 5}
    found = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "c"))
    assert {name: len(split) for name, split in found.items()} == told.splits
    first = found["train"][0]
    assert first["image"].size == (32, 32)
    assert first["id"] in {row.id for row in read_rows(split_folder)}
    assert ImageFolder(out / "train").classes == CLASSES


def test_parquet_is_read_by_datasets_with_its_images(split_folder, tmp_path):
    out = tmp_path / "out"
    export(open_dataset(split_folder), "parquet", out)
    found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "c"))
    assert {name: len(split) for name, split in found.items()} == {"test": 1, "train": 5}
    rows = {row.id: row for row in read_rows(split_folder)}
    one = found["test"][0]
    assert one["image"].size == (32, 32)
    assert json.loads(one["findings"])[0]["verdict"] == "confirmed"
    assert one["sha256"] == rows[one["id"]].sha256


def test_parquet_files_are_numbered_over_how_many_there_are(folder, tmp_path, monkeypatch):
    from medgen.data.exports import embedded_parquet

    monkeypatch.setattr(embedded_parquet, "IMAGES_A_GROUP", 2)
    monkeypatch.setattr(embedded_parquet, "IMAGES_A_FILE", 4)
    export(open_dataset(folder), "parquet", tmp_path / "out")
    written = sorted((tmp_path / "out" / "data").iterdir())
    assert [path.name for path in written] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert [pq.read_metadata(path).num_rows for path in written] == [4, 2]


def test_webdataset_reads_the_shards(split_folder, tmp_path, monkeypatch):
    library = pytest.importorskip("webdataset")
    monkeypatch.setattr(webdataset, "SHARD", 2)
    out = tmp_path / "out"
    export(open_dataset(split_folder), "webdataset", out)
    shards = sorted(str(path) for path in out.glob("train-*.tar"))
    assert len(shards) == 3
    samples = list(library.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert len(samples) == 5
    one = samples[0]
    assert one["__key__"] == one["json"]["id"] == "task-000"
    assert np.array_equal(np.asarray(one["png"]), np.asarray(Image.open(_file(split_folder))))
    classes = json.loads((out / "classes.json").read_text())
    assert classes[one["cls"]] == "chest_x_ray-normal"
    assert one["txt"] == "normal, Chest X-ray"


def _file(folder):
    return folder / next(read_rows(folder)).path


def test_chexgenbench_gets_films_only_under_their_bare_names(folder, tmp_path):
    dataset = open_dataset(folder)
    with pytest.raises(BadInput, match=r'task-004 is Fundus.*--modality "Chest X-ray"'):
        export(dataset, "chexgenbench", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(dataset, "chexgenbench", tmp_path / "out", modality="chest x-ray")
    table = tmp_path / "out" / "assets" / "CSV" / "prompt_INFO.csv"
    with table.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["img_savename"] for line in lines] == [f"task-00{n}.png" for n in range(4)]
    for row in read_table(table):
        assert Image.open(row["path"]).size == (32, 32)


def test_rejected_images_are_exported_when_asked(folder, tmp_path):
    export(open_dataset(folder), "imagefolder", tmp_path / "out", which="rejected")
    (picture,) = (tmp_path / "out").rglob("*.png")
    assert picture.name == "task-rejected_1.png"
    assert export(open_dataset(folder), "imagefolder", tmp_path / "all", which="all").images == 7


def test_a_file_that_changed_stops_the_export_and_nothing_is_left(folder, tmp_path):
    (item, *_) = items(open_dataset(folder))
    item.file.write_bytes(item.file.read_bytes() + b"x")
    with pytest.raises(BadInput, match="its hash differs"):
        export(open_dataset(folder), "imagefolder", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("format", "which", "modality", "line"),
    [
        ("jpeg", "accepted", None, "--format jpeg is unknown"),
        ("imagefolder", "good", None, "--include good is unknown"),
        ("imagefolder", "accepted", "OCT", "no accepted image of OCT: its modalities are Chest"),
    ],
)
def test_what_cannot_be_exported_is_refused(folder, tmp_path, format, which, modality, line):
    with pytest.raises(BadInput, match=line):
        export(open_dataset(folder), format, tmp_path / "out", which, modality)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    from medgen.data.dataset_rows import write_manifest

    folder = write_dataset(tmp_path / "a")
    rows = [row.model_copy(update={"path": "../secret.png"}) for row in read_rows(folder)]
    write_manifest(folder, rows)
    with pytest.raises(BadInput, match="lies outside"):
        export(open_dataset(folder), "imagefolder", tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a\\b", "a\nb"])
def test_an_id_that_is_no_plain_name_is_refused(tmp_path, name):
    from medgen.data.dataset_rows import write_manifest

    folder = write_dataset(tmp_path / "a")
    first = next(read_rows(folder))
    write_manifest(folder, [first.model_copy(update={"id": name, "attempt": 2})])
    with pytest.raises(BadInput, match="no plain name"):
        export(open_dataset(folder), "imagefolder", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_split_that_is_no_plain_name_is_refused(folder):
    (folder / "splits.csv").write_text("id,split\ntask-000,../out\n")
    with pytest.raises(BadInput, match="calls a split"):
        open_dataset(folder)


def test_colour_survives(folder, tmp_path):
    export(open_dataset(folder), "imagefolder", tmp_path / "out", modality="Fundus")
    pictures = sorted((tmp_path / "out").rglob("*.png"))
    assert all(np.asarray(Image.open(path)).std(axis=2).max() > 0 for path in pictures)
    assert pixels(3, color=True).std(axis=2).max() > 0

"""A table's faults are found, each by its rows."""

import numpy as np
import pytest
from PIL import Image

from medgen.data.check import check_table, likeness, look_alikes
from medgen.errors import BadInput


def blobs(seed, size=64):
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (9, 9), dtype=np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        blobs(ord(name)).save(tmp_path / f"{name}.png")
    return tmp_path


def report(folder, *lines):
    path = folder / "table.csv"
    path.write_text("\n".join(["path,text,modal,label,split,group", *lines]) + "\n")
    return check_table(path)


def test_a_clean_table_has_no_problems(folder):
    found = report(folder, "a.png,x,OCT,drusen,train,1", "b.png,y,OCT,drusen,test,2")
    assert found.problems == []
    assert found.labels == {"OCT": {"drusen": {"test": 1, "train": 1}}}
    assert found.sizes == {"64x64": 2}


def test_broken_and_missing_images_are_listed(folder):
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:200])
    found = report(folder, "a.png,x,OCT,,,", "cut.png,x,OCT,,,", "gone.png,,OCT,,,")
    assert found.counts == {"broken image": 2, "empty text": 1}
    assert sorted(p.rows[0] for p in found.problems if p.kind == "broken image") == [3, 4]


def test_a_patient_in_two_splits_is_a_leak(folder):
    found = report(folder, "a.png,x,OCT,,train,7", "b.png,x,OCT,,test,7", "c.png,x,OCT,,test,8")
    assert found.counts == {"leakage": 1}
    assert found.problems[0].rows == [2, 3]


def test_the_same_picture_under_another_name_is_found_even_compressed(folder):
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    blobs(ord("b"), 128).save(folder / "again.jpg", quality=70)
    found = report(
        folder,
        "a.png,x,OCT,,train,1",
        "copy.png,x,OCT,,train,2",
        "b.png,x,OCT,,train,3",
        "again.jpg,x,OCT,,test,4",
        "c.png,x,OCT,,test,5",
    )
    assert found.counts == {"duplicate image": 1, "look-alike image": 1, "possible leakage": 1}


def test_different_pictures_do_not_look_alike():
    hashes = np.stack([likeness(blobs(seed)) for seed in range(200)])
    assert look_alikes(hashes) == []
    assert look_alikes(np.concatenate([hashes, hashes[7:8]])) == [(7, 200)]


def test_a_listed_twice_path_and_an_empty_table_are_told(folder):
    found = report(folder, "a.png,x,OCT,,,", "a.png,y,OCT,,,")
    assert found.counts["duplicate path"] == 1
    with pytest.raises(BadInput, match="has no rows"):
        report(folder)

"""Merging keeps ids unique, checks every file, and leaves nothing where it stops."""

import json

import pytest
from dataset_samples import write_dataset

from medgen.data.dataset_check import check_dataset
from medgen.data.dataset_merge import merge
from medgen.data.dataset_rows import read_rows
from medgen.errors import BadInput


@pytest.fixture
def two(tmp_path):
    return [
        write_dataset(tmp_path / name, films=films, prefix=name)
        for name, films in (("b", 4), ("a", 2))
    ]


def test_two_datasets_become_one_that_is_in_order(two, tmp_path):
    (two[0] / "spec.yaml").write_text("seed: 7\n")
    merged = merge(two, tmp_path / "out")
    assert (merged.images, merged.rejected, merged.repeated) == (10, 2, 0)
    rows = list(read_rows(tmp_path / "out"))
    before = [row for folder in (two[1], two[0]) for row in read_rows(folder)]
    assert rows == before
    assert check_dataset(tmp_path / "out").counts == {}
    assert (tmp_path / "out" / "sources" / "b" / "spec.yaml").read_text() == "seed: 7\n"
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["merged_from"] == ["b", "a"]


def test_clashing_ids_are_refused_unless_they_get_a_prefix(tmp_path):
    one = write_dataset(tmp_path / "one", prefix="x")
    other = write_dataset(tmp_path / "other", prefix="y")
    for row in read_rows(other):  # the same ids with other pictures
        assert row.id.startswith("y")
    clash = _renamed(other, tmp_path / "clash")
    with pytest.raises(BadInput, match=r"id x-000 is another image.*--prefix"):
        merge([one, clash], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merged = merge([one, clash], tmp_path / "out", prefix=True)
    assert merged.images == 12
    ids = [row.id for row in read_rows(tmp_path / "out")]
    assert ids == sorted(ids) and "one-x-000" in ids and "clash-x-000" in ids
    groups = {row.group.split("-")[0] for row in read_rows(tmp_path / "out")}
    assert groups == {"one", "clash"}
    assert check_dataset(tmp_path / "out").counts == {}


def test_the_same_image_is_taken_once(tmp_path):
    one = write_dataset(tmp_path / "one", films=4)
    more = write_dataset(tmp_path / "more", films=6, fundi=0)
    merged = merge([one, more], tmp_path / "prefixed", prefix=True)
    assert (merged.images, merged.repeated) == (8, 4)
    assert check_dataset(tmp_path / "prefixed").counts == {}


def test_a_damaged_file_stops_the_merge_and_nothing_is_left(two, tmp_path):
    row = next(read_rows(two[1]))
    (two[1] / row.path).write_bytes(b"x")
    with pytest.raises(BadInput, match="its hash differs"):
        merge(two, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_one_dataset_or_the_same_twice_is_nothing_to_merge(two, tmp_path):
    with pytest.raises(BadInput, match="two or more"):
        merge(two[:1], tmp_path / "out")
    with pytest.raises(BadInput, match="given twice"):
        merge([two[0], two[0]], tmp_path / "out")


def test_splits_are_left_behind_and_that_is_said(two, tmp_path):
    (two[0] / "splits.csv").write_text("id,split\nb-000,train\n")
    merged = merge(two, tmp_path / "out")
    assert merged.notes == ["splits were left behind: split the merged dataset"]
    assert not (tmp_path / "out" / "splits.csv").exists()


def _renamed(folder, target):
    """The dataset with the ids of prefix "y" called "x"."""
    from medgen.data.dataset_layout import settled_name
    from medgen.data.dataset_rows import write_manifest

    target.mkdir()
    rows = []
    for row in read_rows(folder):
        named = row.model_copy(update={"id": row.id.replace("y", "x", 1)})
        named = named.model_copy(update={"path": settled_name(named.id, named.attempt, named.kept)})
        (target / named.path).parent.mkdir(parents=True, exist_ok=True)
        (target / named.path).write_bytes((folder / row.path).read_bytes())
        rows.append(named)
    write_manifest(target, sorted(rows, key=lambda one: (one.id, one.attempt)))
    return target

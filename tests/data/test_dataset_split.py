"""Splits keep groups whole and labels in their shares, the same for the same seed."""

import csv
from collections import Counter, defaultdict

import pytest
from dataset_samples import write_dataset

from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import read_rows
from medgen.data.dataset_split import assign, parse_shares, split
from medgen.errors import BadInput

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def test_groups_are_whole_and_every_label_has_its_share(tmp_path):
    folder = write_dataset(tmp_path / "big", films=80, fundi=40)
    report = split(open_dataset(folder), SHARES, seed=3)
    with (folder / "splits.csv").open(newline="") as stream:
        splits = {line["id"]: line["split"] for line in csv.DictReader(stream)}
    rows = list(read_rows(folder))
    assert set(splits) == {row.id for row in rows}
    of_group = defaultdict(set)
    for row in rows:
        of_group[row.group].add(splits[row.id])
    assert all(len(found) == 1 for found in of_group.values())
    assert report.counts == dict(Counter(splits[row.id] for row in rows if row.kept))
    for label in ("Chest X-ray: normal", "Fundus: normal"):
        assert report.labels[label]["train"] == pytest.approx(32, abs=2)
        assert min(report.labels[label].values()) >= 2
    assert report.notes == []


def test_the_seed_decides_and_nothing_else(tmp_path):
    folder = write_dataset(tmp_path / "d", films=40)
    split(open_dataset(folder), SHARES, seed=1)
    first = (folder / "splits.csv").read_bytes()
    split(open_dataset(folder), SHARES, seed=1, replace=True)
    assert (folder / "splits.csv").read_bytes() == first
    split(open_dataset(folder), SHARES, seed=2, replace=True)
    assert (folder / "splits.csv").read_bytes() != first


def test_many_small_labels_still_fill_the_small_parts():
    strata = {f"g{n}": Counter({("m", f"label {n // 3}"): 1}) for n in range(300)}
    counts = Counter(assign(strata, SHARES, 0).values())
    assert counts["train"] == pytest.approx(240, abs=15)
    assert counts["val"] == pytest.approx(30, abs=10)
    assert counts["test"] == pytest.approx(30, abs=10)


def test_a_label_in_one_group_cannot_be_split_and_that_is_said(tmp_path):
    from medgen.data.dataset_rows import write_manifest

    folder = write_dataset(tmp_path / "d", films=20, fundi=20)
    rows = [
        row.model_copy(update={"group": "one"}) if row.modality == "Fundus" else row
        for row in read_rows(folder)
    ]
    write_manifest(folder, rows)
    report = split(open_dataset(folder), SHARES)
    assert report.labels["Fundus: normal"] == {"train": 20, "val": 0, "test": 0}
    assert report.notes == [
        "Fundus: normal: train 20, val 0, test 0, off its shares, for its 20 images are in 1 groups"
    ]


def test_a_split_is_not_written_over_unasked(folder):
    split(open_dataset(folder), SHARES)
    before = (folder / "splits.csv").read_bytes()
    with pytest.raises(BadInput, match="--replace"):
        split(open_dataset(folder), {"train": 1.0})
    assert (folder / "splits.csv").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["train", "train=0.5", "train=1.2", "train=x", "a=0.5,a=0.5", "../x=1", "train=-1,b=2"]
)
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(BadInput, match="--parts"):
        parse_shares(text)
    assert parse_shares("train=0.75, test=0.25") == {"train": 0.75, "test": 0.25}


def test_an_id_that_is_in_no_split_is_refused(folder):
    (folder / "splits.csv").write_text("id,split\nother,train\n")
    dataset = open_dataset(folder)
    with pytest.raises(BadInput, match="is in no split"):
        dataset.split_of(next(dataset.rows()))

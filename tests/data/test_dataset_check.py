"""Each way in which a dataset's folder can be wrong is found and named."""

import hashlib

import numpy as np
import pytest
from dataset_samples import pixels
from PIL import Image

from medgen.data.dataset_check import check_dataset
from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import read_rows, write_manifest
from medgen.data.dataset_split import split
from medgen.data.images import png_bytes


def rows(folder):
    return list(read_rows(folder))


def rewrite(folder, change):
    """Write the manifest again with `change(row)` for each row; None leaves one out."""
    write_manifest(folder, [new for row in rows(folder) if (new := change(row)) is not None])


def with_bytes(folder, row, data):
    """Put other bytes in a row's file and their hash in the manifest."""
    (folder / row.path).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    rewrite(
        folder,
        lambda one: one.model_copy(update={"sha256": sha256}) if one.path == row.path else one,
    )


def test_a_whole_dataset_has_no_fault(folder):
    split(open_dataset(folder), {"train": 0.5, "test": 0.5})
    report = check_dataset(folder)
    assert (report.counts, report.faults, report.alike) == ({}, [], [])
    assert (report.rows, report.images, report.measured) == (7, 6, None)


def test_changed_and_missing_files_are_found(folder):
    first, second, *_ = rows(folder)
    (folder / first.path).write_bytes((folder / second.path).read_bytes())
    (folder / second.path).unlink()
    report = check_dataset(folder)
    assert report.counts == {"hash": 1, "missing file": 1}
    assert [fault.about for fault in report.faults] == [first.id, second.id]


def test_a_truncated_file_is_a_broken_image(folder):
    first = rows(folder)[0]
    data = (folder / first.path).read_bytes()
    (folder / first.path).write_bytes(data[: len(data) // 2])
    assert set(check_dataset(folder).counts) == {"hash", "broken image"}


def test_a_picture_without_the_mark_is_found(folder):
    first = rows(folder)[0]
    Image.fromarray(pixels(5)).save(folder / "plain.png")
    with_bytes(folder, first, (folder / "plain.png").read_bytes())
    assert check_dataset(folder).counts == {"no synthetic mark": 1}


def test_another_size_and_another_format_are_found(folder):
    first, second, *_ = rows(folder)
    with_bytes(folder, first, png_bytes(pixels(5)[:16], {}))
    Image.fromarray(pixels(6)).save(folder / "other.jpg")
    with_bytes(folder, second, (folder / "other.jpg").read_bytes())
    assert check_dataset(folder).counts == {"size": 1, "format": 1}


def test_orphans_and_a_run_that_was_not_finished_are_told(folder):
    (folder / "images" / "00").mkdir(exist_ok=True)
    (folder / "images" / "00" / ".task.png.tmp").write_bytes(b"half")
    (folder / ".work").mkdir()
    report = check_dataset(folder)
    assert report.counts == {"orphan file": 1}
    assert report.faults[0].about == "images/00/.task.png.tmp"
    assert "--resume" in report.notes[0]


def test_copies_are_faults_and_look_alikes_are_told(folder):
    first, second, third, *_ = rows(folder)
    same = np.asarray(Image.open(folder / first.path))
    with_bytes(folder, second, png_bytes(same, {"Note": "other bytes, the same pixels"}))
    with_bytes(folder, third, png_bytes(same // 2 + 60, {}))
    report = check_dataset(folder)
    assert report.counts == {"duplicate image": 1}
    assert report.faults[0].text == f"{second.id} has the pixels of {first.id}"
    assert [(one.kind, one.about) for one in report.alike] == [("look-alike images", third.id)]


def test_two_accepted_images_of_one_id_and_wrong_places_are_found(folder):
    first, second, *_ = rows(folder)
    rewrite(
        folder,
        lambda row: (
            row.model_copy(update={"id": first.id, "attempt": 2}) if row.id == second.id else row
        ),
    )
    assert check_dataset(folder).counts == {"duplicate id": 1, "path": 1}


def test_manifests_that_differ_are_found(folder):
    table = folder / "manifest.csv"
    text = table.read_text()
    table.write_text(text.replace("61.0", "62.0", 1))
    assert check_dataset(folder).counts == {"manifest": 1}
    table.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    assert check_dataset(folder).counts == {"manifest": 1}
    table.write_text("id,attempt\n1,x\n")
    assert check_dataset(folder).counts == {"manifest": 1}
    table.unlink()
    assert check_dataset(folder).faults[0].text == "manifest.csv is missing"


def test_a_path_out_of_the_folder_is_not_followed(folder):
    (folder.parent / "secret.png").write_bytes(b"x")
    first = rows(folder)[0].id
    rewrite(
        folder,
        lambda row: row.model_copy(update={"path": "../secret.png"}) if row.id == first else row,
    )
    report = check_dataset(folder)
    assert report.counts == {"path": 2, "orphan file": 1}
    assert "lies outside" in report.faults[0].text


def test_accepted_though_contradicted_is_found(folder):
    rewrite(
        folder,
        lambda row: row.model_copy(
            update={
                "findings": [
                    one.model_copy(update={"verdict": "contradicted"}) for one in row.findings
                ]
            }
        ),
    )
    assert check_dataset(folder).counts == {"verdict": 2}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda text: text.replace("task-000,", "task-xxx,"), {"split": 2}),
        (lambda text: text.replace("train", "test", 1), {"leakage": 1}),
    ],
)
def test_splits_that_do_not_fit_are_found(folder, change, kind):
    split(open_dataset(folder), {"train": 1.0})
    text = (folder / "splits.csv").read_text()
    (folder / "splits.csv").write_text(change(text))
    assert check_dataset(folder).counts == kind

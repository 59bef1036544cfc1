"""Tables as training sees them: joined, split, on disk, and pictures from files or an array."""

import csv
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from medgen.errors import BadInput, MedgenError
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.generator.training.latents import augmented, keep_latents, statistics
from medgen.generator.training.pictures import PackedPictures, PictureFiles
from medgen.generator.training.row_index import index_rows
from medgen.generator.training.rows import Draws, may_be_mirrored, sampling_weights
from medgen.knowledge import cards


def _table(path, header, *rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def test_tables_are_joined_by_path_and_later_ones_win(tmp_path):
    table = _table(
        tmp_path / "table.csv", ["modal", "path", "Text", "split"],
        ["OCT", "a.png", "x", "train"], ["OCT", "b.png", "y", "test"],
        ["OCT", "c.png", "z", "train"],
    )  # fmt: skip
    first = _table(tmp_path / "first.csv", ["path", "age", "sex"], ["a.png", "50", "F"])
    second = _table(tmp_path / "second.csv", ["age", "path"], ["51", "a.png"], ["", "c.png"])
    rows = index_rows(table, [first, second], tmp_path / "cache")
    assert [row["text"] for row in rows] == ["x", "z"]
    assert rows[0] == {
        "modal": "OCT", "path": "a.png", "text": "x", "split": "train", "label": "",
        "group": "a.png", "source": "", "age": "51", "sex": "F", "index": "0",
        "image": str(tmp_path / "a.png"), "fold": "training",
    }  # fmt: skip
    assert (rows[1]["index"], rows[1]["age"], rows[1]["sex"]) == ("2", "", "")
    again = index_rows(table, [first, second], tmp_path / "cache")
    assert again.path == rows.path
    _table(second, ["age", "path"], ["52", "a.png"])
    assert index_rows(table, [first, second], tmp_path / "cache")[0]["age"] == "52"


def test_rows_of_many_chunks_are_found_by_number_and_in_order(tmp_path):
    count = 9000
    rows = [[f"{i}.png", f"t{i}", "OCT", f"g{i // 3}"] for i in range(count)]
    table = _table(tmp_path / "table.csv", ["path", "text", "modal", "group"], *rows)
    training, held_out = index_rows(table, [], tmp_path).folds()
    assert len(training) + len(held_out) == count
    assert 0.06 < len(held_out) / count < 0.10
    assert [row["text"] for row in training] == [training[i]["text"] for i in range(len(training))]
    assert {row["group"] for row in training}.isdisjoint(row["group"] for row in held_out)
    assert held_out[:5][4] == held_out[4]


def test_wrong_tables_are_refused(tmp_path):
    def refused(match, table, joined=()):
        with pytest.raises(BadInput, match=match):
            index_rows(table, joined, tmp_path)

    header = ["path", "text", "modal", "split"]
    refused("split=train", _table(tmp_path / "a.csv", header, ["a", "b", "OCT", "test"]))
    refused(
        "no modality card for Sonar",
        _table(tmp_path / "b.csv", header, ["a", "b", "Sonar", "train"]),
    )
    good = _table(tmp_path / "c.csv", header, ["a", "b", "OCT", "train"])
    refused("no column 'path'", good, [_table(tmp_path / "d.csv", ["age"], ["5"])])
    assert not list(tmp_path.glob(".*")), "no half-written index stays"


def test_draws_are_those_of_a_weighted_choice():
    rows = [{"modal": "A", "source": "", "label": str(i % 3)} for i in range(50)]
    picks, generator = Draws(rows, seed=4, batch=16).of(7)
    reference = np.random.default_rng([4, 7])
    assert np.array_equal(picks, reference.choice(50, 16, p=sampling_weights(rows)))
    assert generator.integers(1000) == reference.integers(1000)


@pytest.fixture
def rows(tmp_path):
    for i in range(3):
        Image.new("L", (40, 20), 100 + i).save(tmp_path / f"{i}.png")
    listed = [[f"{i}.png", "x", "OCT"] for i in range(3)]
    table = _table(tmp_path / "table.csv", ["path", "text", "modal"], *listed)
    return index_rows(table, [], tmp_path / "cache")


def test_files_are_padded_or_cropped(rows, tmp_path):
    padded = PictureFiles(rows, 16, "pad", workers=2).read([2, 0])
    cropped = PictureFiles(rows, 16, "crop", workers=2)
    assert padded.shape == (2, 16, 16, 3) and padded[:, 0].max() == 0
    assert cropped.read([2, 0])[:, 0, 0, 0].tolist() == [102, 100]
    before = cropped.identity()
    Image.new("L", (40, 20), 7).save(tmp_path / "1.png")
    assert cropped.identity() != before
    (tmp_path / "1.png").write_bytes(b"cut")
    with pytest.raises(BadInput, match=r"1\.png.*1 of 3 pictures.*medgen data check"):
        cropped.read([0, 1, 2])


def test_a_packed_array_must_hold_every_row(rows, tmp_path):
    np.save(tmp_path / "few.npy", np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(BadInput, match=r"for every row of the table \(3\)"):
        PackedPictures(tmp_path / "few.npy", rows)


def test_only_what_has_no_side_is_mirrored(monkeypatch):
    known = cards.modality_cards()
    flat = known["OCT"].model_copy(update={"name": "Histology", "sided": False})
    monkeypatch.setattr(
        "medgen.generator.training.rows.modality_cards", lambda: {**known, "Histology": flat}
    )
    row = {"text": "Tumour cells.", "label": "", "modal": "Histology"}
    assert may_be_mirrored(row)
    assert not may_be_mirrored({**row, "text": "Cells of the left lung."})
    assert not any(may_be_mirrored({**row, "modal": name}) for name in known)
    image = torch.zeros(64, 3, 16, 16) - 1
    image[:, :, :, :4] = 1
    seeded = torch.Generator().manual_seed(0)
    seen = augmented(image, seeded, [True] * 32 + [False] * 32)
    turned = seen[..., 8:].mean((1, 2, 3)) > seen[..., :8].mean((1, 2, 3))
    assert 8 < int(turned[:32].sum()) < 24
    assert not turned[32:].any()


def test_statistics_of_chunks_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(3, 2, (50, 4, 2, 2)).astype(np.float16)
    mean, std = statistics(values[start : start + 16] for start in range(0, 50, 16))
    whole = torch.from_numpy(values.astype(np.float32))
    assert torch.allclose(mean[:, 0, 0], whole.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(std[:, 0, 0], whole.std((0, 2, 3)), atol=1e-4)


@pytest.fixture
def files_up_to():
    """Sets how large files may grow, as on a disk that is nearly full."""
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


def test_a_full_disk_leaves_neither_half_an_index_nor_half_the_latents(rows, tmp_path, files_up_to):
    table = tmp_path / "long.csv"
    _table(table, ["path", "text", "modal"], *[[f"{i}.png", "x" * 9, "OCT"] for i in range(2000)])
    files_up_to(20_000)
    with pytest.raises(MedgenError, match=r"cannot write .*rows-.*the disk is full"):
        index_rows(table, [], tmp_path / "other")
    model = CompactAutoencoder(channels=(8, 8, 8)).eval()
    pictures = PictureFiles(rows, 512, "pad", workers=1)
    with pytest.raises(MedgenError, match=r"cannot write .*latents-.*the disk is full"):
        keep_latents(tmp_path / "other", model, pictures, 3, 0, [False] * 3, "hash")
    assert list((tmp_path / "other").iterdir()) == []
    files_up_to(10_000_000)
    kept = keep_latents(tmp_path / "other", model, pictures, 3, 0, [False] * 3, "hash")
    assert kept.read([2], None).shape == (1, 16, 32, 32)

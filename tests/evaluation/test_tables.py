"""Bad tables stop an evaluation at once, with one line that names the row."""

import json

import numpy as np
import pytest
from PIL import Image

from medgen.errors import BadInput
from medgen.evaluation.tables import read_table


def picture(path, size=(32, 32), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (*size[::-1], 4), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    return tmp_path


def table(folder, lines, header="path,text,modal"):
    path = folder / "table.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_table_is_read_with_its_images_and_findings(folder):
    findings = json.dumps([{"finding": "cardiomegaly", "status": "present"}]).replace('"', '""')
    path = table(
        folder,
        [f'a.png,big heart,CXR,c1,p1,"{findings}",7', "b.png,,chest x-ray,,,,"],
        "path,text,modal,label,group,findings,age",
    )
    read = read_table(path, "real")
    assert [row.modal for row in read.rows] == ["Chest X-ray", "Chest X-ray"]
    assert read.rows[0].findings[0].finding == "cardiomegaly"
    assert read.rows[0].more == {"age": "7"}
    assert list(read.groups) == ["p1", str(folder / "b.png")]
    assert read.images().shape == (2, 32, 32, 3)
    assert read.size == 32
    assert [len(batch) for batch in read.batches(1)] == [1, 1]


def test_images_are_brought_to_one_size_when_asked(folder):
    picture(folder / "wide.png", (64, 32))
    path = table(folder, ["a.png,,OCT", "wide.png,,OCT"])
    images = read_table(path, "real", size=48).images()
    assert images.shape == (2, 48, 48, 3)
    assert images[1, :12].max() == 0  # padded, not squashed


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,,OCT", "gone.png,,OCT"], r"row 3: no image at .*gone.png"),
        (["a.png,,OCT", "text.png,,OCT"], r"row 3: cannot read .*text.png as an image"),
        (["a.png,,OCT", "cut.png,,OCT"], r"row 3: cannot read .*cut.png as an image"),
        (["a.png,,OCT", "alpha.png,,OCT"], r"row 3: .*alpha.png is of mode RGBA"),
        (["a.png,,OCT", "./a.png,,OCT"], r"row 3: .*a.png is row 2 already"),
        (["a.png,,OCT", "large.png,,OCT"], r"row 3: .*large.png has 40x32 pixels.*--size"),
        (["a.png,,OCT", "b.png,,"], r"row 3: modal is empty"),
        (["a.png,,OCT", ",,OCT"], r"row 3: path is empty"),
        ([], r"has 0 images"),
        (["a.png,,OCT"], r"has 1 image: an evaluation needs 2"),
    ],
)
def test_bad_rows_are_named(folder, lines, message):
    picture(folder / "large.png", (40, 32))
    picture(folder / "alpha.png", mode="RGBA")
    (folder / "text.png").write_text("no image")
    whole = folder / "b.png"
    (folder / "cut.png").write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(BadInput, match=message) as caught:
        read_table(table(folder, lines), "real")
    assert "\n" not in str(caught.value)


def test_blank_lines_do_not_shift_the_row_that_is_named(folder):
    with pytest.raises(BadInput, match=r"row 5: no image at"):
        read_table(table(folder, ["a.png,,OCT", "", "", "gone.png,,OCT"]), "real")


def test_findings_that_are_no_findings_are_named(folder):
    path = table(folder, ["a.png,,OCT,", "b.png,,OCT,[oops"], "path,text,modal,findings")
    with pytest.raises(BadInput, match="row 3: findings is no JSON list"):
        read_table(path, "real")

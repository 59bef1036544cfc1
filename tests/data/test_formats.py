"""Tables of the field come in and go out as they should."""

import pandas as pd
import pytest

from medgen.data.formats import Reading, read_rows, write_rows
from medgen.errors import BadInput


def test_minims_unquoted_commas_are_repaired_and_counted(tmp_path):
    table = tmp_path / "minim.csv"
    table.write_text(
        'path,Text,modality\na.png,drusen, large, central,OCT\nb.png,"quoted, text",OCT\n'
        "c.png,plain,Fundus\n"
    )
    reading = Reading()
    rows = list(read_rows(table, reading))
    assert [row["text"] for row in rows] == ["drusen, large, central", "quoted, text", "plain"]
    assert [row["modal"] for row in rows] == ["OCT", "OCT", "Fundus"]
    assert rows[0]["path"] == str(tmp_path / "a.png")
    assert reading.form == "minim"
    assert reading.notes == ["1 rows had unquoted commas in their text and were repaired (rows 2)"]


def test_columns_come_in_any_order_and_more_of_them_are_kept(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("modal,age,text,path\nOCT,61,drusen,x.png\n")
    (row,) = read_rows(table)
    assert row == {
        "modal": "OCT",
        "age": "61",
        "text": "drusen",
        "path": str(tmp_path / "x.png"),
    }


def test_chexgenbench_table_is_chest_xray_and_finds_its_images(tmp_path):
    (tmp_path / "assets" / "CSV").mkdir(parents=True)
    (tmp_path / "assets" / "synthetic_images").mkdir()
    image = tmp_path / "assets" / "synthetic_images" / "1.png"
    image.write_bytes(b"")
    table = tmp_path / "assets" / "CSV" / "prompt_INFO.csv"
    table.write_text("prompt,img_savename\nSmall left effusion.,1.png\n")
    reading = Reading()
    (row,) = read_rows(table, reading)
    assert reading.form == "chexgenbench"
    assert row == {"text": "Small left effusion.", "path": str(image), "modal": "Chest X-ray"}


@pytest.mark.parametrize("form", ["medgen", "minim", "chexgenbench"])
def test_what_is_written_is_read_back(tmp_path, form):
    image = tmp_path / "images" / "1.png"
    row = {
        "path": str(image),
        "text": 'effusion, "small", left',
        "modal": "Chest X-ray",
        "label": "effusion",
    }
    table = write_rows([row], tmp_path / "out" / "table.csv", form)
    (back,) = read_rows(table)
    expected = row if form == "medgen" else {k: v for k, v in row.items() if k != "label"}
    assert back == expected
    assert str(tmp_path) not in table.read_text()


def test_other_modalities_are_refused_for_chexgenbench(tmp_path):
    with pytest.raises(BadInput, match=r"row 2 is OCT"):
        write_rows(
            [{"path": "a.png", "text": "", "modal": "OCT"}], tmp_path / "t.csv", "chexgenbench"
        )
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("path,text\na.png,x\n", "no column modal"),
        ("path,label,modal\na.png,b,c\n", "no column text"),
        ("path,text,prompt,modal\na,b,c,d,e\n", "row 2 has 5 cells for 4 columns"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, content, line):
    table = tmp_path / "table.csv"
    table.write_text(content)
    with pytest.raises(BadInput, match=line):
        list(read_rows(table))
    with pytest.raises(BadInput, match="no table at"):
        list(read_rows(tmp_path / "missing.csv"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes(b"path,text,modal\n\xff\xfe\x00,1,2\n")
    with pytest.raises(BadInput, match="cannot read"):
        list(read_rows(table))
    table.with_suffix(".parquet").write_bytes(b"no parquet")
    with pytest.raises(BadInput, match="Parquet"):
        list(read_rows(table.with_suffix(".parquet")))


def test_parquet_with_gaps_in_numbers_and_categories_reads_as_csv_would(tmp_path):
    frame = pd.DataFrame(
        {
            "path": ["a.png", "b.png"],
            "text": ["x", "y"],
            "modal": pd.Categorical(["OCT", None]),
            "label": [1.0, None],
            "group": pd.array([7, None], dtype="Int64"),
            "ratio": [0.5, 0.25],
        }
    )
    frame.to_parquet(tmp_path / "table.parquet")
    rows = list(read_rows(tmp_path / "table.parquet"))
    kept = [{key: row[key] for key in ("modal", "label", "group", "ratio")} for row in rows]
    assert kept == [
        {"modal": "OCT", "label": "1", "group": "7", "ratio": "0.5"},
        {"modal": "", "label": "", "group": "", "ratio": "0.25"},
    ]


def test_a_column_of_ones_own_named_prompt_stays_what_it_was(tmp_path):
    row = {"path": str(tmp_path / "a.png"), "text": "report", "modal": "OCT", "prompt": "drusen"}
    write_rows([row], tmp_path / "table.csv")
    assert next(iter(read_rows(tmp_path / "table.csv")))["prompt"] == "drusen"

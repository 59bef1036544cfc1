"""`medgen dataset` as a person uses it: one JSON object, exit codes, one line of error."""

import json

import pytest
from dataset_samples import write_dataset
from typer.testing import CliRunner

from medgen.cli import app
from medgen.data.dataset_rows import read_rows


def medgen(*arguments):
    result = CliRunner().invoke(app, ["dataset", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_json_is_one_object_on_stdout(folder, tmp_path):
    code, out, _ = medgen("stats", folder, "--json")
    assert (code, json.loads(out)["images"]) == (0, 6)
    code, out, _ = medgen("split", folder, "--parts", "train=0.5,test=0.5", "--json")
    assert (code, sum(json.loads(out)["counts"].values())) == (0, 6)
    target = tmp_path / "out"
    code, out, _ = medgen("export", folder, "--format", "imagefolder", "--out", target, "--json")
    assert (code, json.loads(out)["out"]) == (0, str(target))
    code, out, _ = medgen("verify", folder, "--json")
    assert (code, json.loads(out)["counts"]) == (0, {})
    other = write_dataset(tmp_path / "other", prefix="other")
    code, out, _ = medgen("merge", folder, other, "--out", tmp_path / "both", "--json")
    assert (code, json.loads(out)["images"]) == (0, 12)


def test_people_read_tables_and_the_paths_of_what_was_written(folder, tmp_path):
    code, out, err = medgen("stats", folder)
    assert code == 0
    assert "6 images of 7 tasks, 7 drawn, 1 rejected" in out
    assert "yield" in out and "rejected 1: cardiomegaly: contradicted" in out
    code, out, err = medgen(
        "export", folder, "--format", "webdataset", "--out", tmp_path / "shards"
    )
    assert out.splitlines()[-1] == str(tmp_path / "shards")
    assert "images: 6" in err
    code, out, _ = medgen("card", folder)
    assert code == 0
    assert str(folder / "datasheet.html") in out.splitlines()


def test_verify_exits_with_one_when_something_is_wrong(folder):
    (folder / next(read_rows(folder)).path).write_bytes(b"")
    code, out, _ = medgen("verify", folder)
    assert code == 1
    assert "hash: " in out and "1 broken image" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("stats", "missing"), "no folder at"),
        (("stats", "s3://bucket/films"), "fetch the dataset first"),
        (
            ("export", "DIR", "--format", "gif", "--out", "OUT"),
            "--format gif is unknown: use minim",
        ),
        (("export", "DIR", "--format", "imagefolder", "--out", "DIR"), "there already"),
        (("split", "DIR", "--parts", "a=2"), "NAME=SHARE"),
        (("merge", "DIR", "--out", "OUT"), "give two or more"),
        (("card", "."), "no dataset in"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    named = [str(folder) if word == "DIR" else word for word in arguments]
    code, out, err = medgen(*named)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: ") and line in err
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["stats", "split", "merge", "verify", "export", "card"])
def test_every_command_has_a_help_page_with_examples(name):
    code, out, _ = medgen(name, "--help")
    assert code == 0
    assert f"medgen dataset {name}" in out

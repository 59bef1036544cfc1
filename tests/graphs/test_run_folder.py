"""The run's folder: made whole, found again, and never on top of another run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medgen.errors import BadInput
from medgen.graphs.run_folder import REQUEST, RunFolder, image_path, new_run_id, request_digest
from medgen.records import Request, TraceEvent

REQUESTED = Request(prompt="cardiomegaly, chest X-ray", seed=4)


def test_ids_sort_by_time_and_end_in_the_requests_digest() -> None:
    ids = [new_run_id(REQUESTED) for _ in range(5)]
    assert ids == sorted(ids) and len(set(ids)) == 5
    assert {one.rsplit("-", 1)[1] for one in ids} == {request_digest(REQUESTED)}
    assert request_digest(REQUESTED) != request_digest(REQUESTED.model_copy(update={"seed": 5}))


def test_a_run_is_found_by_id_and_by_folder(runs: Path, tmp_path: Path) -> None:
    made = RunFolder.create(REQUESTED)
    assert made.path == (runs / made.run_id).resolve()
    for key in (made.run_id, made.path, str(made.path)):
        found = RunFolder.open(key)
        assert (found.path, found.run_id, found.request) == (made.path, made.run_id, REQUESTED)
    elsewhere = RunFolder.create(REQUESTED, tmp_path / "mine")
    assert RunFolder.open(elsewhere.run_id, out=tmp_path / "mine").path == elsewhere.path


@pytest.mark.parametrize("run", ["nothing", "", "..", "a/b", "\x00"])
def test_unknown_runs_are_bad_input(runs: Path, run: str) -> None:
    with pytest.raises(BadInput):
        RunFolder.open(run)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"run_id": "x"}', '{"run_id": 1, "request": 2}']
)
def test_a_damaged_run_is_bad_input(runs: Path, content: str) -> None:
    made = RunFolder.create(REQUESTED)
    (made.path / REQUEST).write_text(content)
    with pytest.raises(BadInput, match="damaged"):
        RunFolder.open(made.run_id)


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    RunFolder.create(REQUESTED, tmp_path / "out")
    before = (tmp_path / "out" / REQUEST).read_bytes()
    with pytest.raises(BadInput, match="another run"):
        RunFolder.create(REQUESTED, tmp_path / "out")
    assert (tmp_path / "out" / REQUEST).read_bytes() == before


def test_an_image_that_would_be_replaced_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"mine")
    with pytest.raises(BadInput, match=r"image\.png"):
        RunFolder.create(REQUESTED, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_a_folder_with_other_files_may_be_used_and_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    made = RunFolder.create(REQUESTED, tmp_path)
    made.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_discard_removes_the_folders_that_were_made(tmp_path: Path) -> None:
    made = RunFolder.create(REQUESTED, tmp_path / "a" / "b")
    (made.path / "candidates").mkdir()
    (made.path / "candidates" / "x.png").write_bytes(b"x")
    made.discard()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folders_are_bad_input_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (
        tmp_path / "file",
        tmp_path / "file" / "a",
        "/proc/medgen/a",
        "\x00",
        "~nobody-such/a",
    ):
        with pytest.raises(BadInput) as raised:
            RunFolder.create(REQUESTED, out)
        assert "--out" in str(raised.value) and "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_bad_input(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    try:
        (locked / "probe").touch()
    except PermissionError:
        with pytest.raises(BadInput, match="cannot write"):
            RunFolder.create(REQUESTED, locked / "out")
        assert list(locked.iterdir()) == []
    else:
        pytest.skip("this user may write anywhere")


def test_image_names() -> None:
    assert image_path(Path("/x"), 0, 1) == Path("/x/image.png")
    assert image_path(Path("/x"), 2, 3) == Path("/x/image_2.png")


def test_the_trace_is_one_object_a_line(tmp_path: Path) -> None:
    made = RunFolder.create(REQUESTED, tmp_path / "out")
    event = TraceEvent(node="parse", started="now", seconds=0.1, outputs={"text": "a\nb"})
    lines = made.write_trace([event, event], "<html>").read_text().splitlines()
    assert [json.loads(line)["node"] for line in lines] == ["parse", "parse"]
    assert (made.path / "trace.html").read_text() == "<html>"

"""The manifest: both files hold the same rows, come back equal, and have the same bytes again."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medgen.data.dataset_rows import (
    COLUMNS,
    PARQUET,
    TABLE,
    Row,
    read_manifest,
    read_rows,
    write_manifest,
)
from medgen.errors import BadInput
from medgen.records import Finding, Measurement, Plan, Quality


def row(name: str, attempt: int = 1, **more: object) -> Row:
    finding = Finding(
        finding="cardiomegaly",
        code="HP:0001640",
        verdict="confirmed",
        measurements=[Measurement(name="ratio", value=0.61, check="ratio")],
    )
    values = {
        "id": name,
        "attempt": attempt,
        "path": f"images/00/{name}.png",
        "accepted": True,
        "modality": "Chest X-ray",
        "prompt": 'cardiomegaly, "large"\nchest X-ray, größer',
        "drawn_prompt": "chest X-ray, cardiomegaly",
        "label": "cardiomegaly",
        "findings": [finding],
        "codes": ["HP:0001640"],
        "plan": Plan(prompt="cardiomegaly", modality="Chest X-ray", findings=[finding]),
        "quality": Quality(score=0.9),
        "score": 0.75,
        "seed": 2**62 + 1,
        "steps": 20,
        "guidance": 1.6,
        "rounds": 1,
        "generator": "0123",
        "verifier": "4567",
        "sha256": "ab" * 32,
        "width": 256,
        "height": 256,
        "group": name,
    }
    return Row.model_validate({**values, **more})


ROWS = [
    row("a-1"),
    row("a-2", 1, accepted=False, reasons=["blurred, and dark"], nearest_distance=0.5),
    row("a-2", 2, accepted=None, reasons=["not measured"], age=61.0, sex="female", quality=None),
]


def test_both_files_come_back_as_they_were(tmp_path: Path) -> None:
    assert write_manifest(tmp_path, ROWS) == 3
    assert list(read_rows(tmp_path / PARQUET)) == ROWS
    assert list(read_rows(tmp_path / TABLE)) == ROWS
    assert [one.kept for one in ROWS] == [True, False, False]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, iter(ROWS))
    for file in (PARQUET, TABLE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_columns_are_plain_values(tmp_path: Path) -> None:
    write_manifest(tmp_path, ROWS)
    schema = pq.read_schema(tmp_path / PARQUET)
    assert tuple(schema.names) == COLUMNS
    assert {str(kind) for kind in schema.types} == {"string", "int64", "double", "bool"}
    wanted = list(read_manifest(tmp_path, ["id", "accepted"]))
    assert [one["accepted"] for one in wanted] == [True, False, None]


def test_rows_out_of_order_leave_what_was_there(tmp_path: Path) -> None:
    write_manifest(tmp_path, ROWS[:1])
    before = (tmp_path / PARQUET).read_bytes()
    with pytest.raises(ValueError, match="comes after"):
        write_manifest(tmp_path, [ROWS[1], ROWS[0]])
    assert (tmp_path / PARQUET).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [TABLE, PARQUET]


def test_no_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no dataset in"):
        list(read_rows(tmp_path))
    (tmp_path / PARQUET).write_bytes(b"PAR1 and no more")
    with pytest.raises(BadInput, match="cannot be read"):
        list(read_rows(tmp_path))

"""Tables of ratings: what is read, what is passed over, what refuses the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgen.data.images import pixel_sha256, save_synthetic_png
from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.feedback.ratings_table import import_ratings

HEADER = "image_path,rating,modality,expert_level,prompt"


@pytest.fixture
def log(tmp_path: Path) -> FeedbackLog:
    return FeedbackLog(tmp_path / "log.sqlite")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Four small pictures beside the table."""
    return [
        save_synthetic_png(tmp_path / f"{n}.png", np.full((8, 8), 40 * n, dtype=np.uint8))
        for n in range(4)
    ]


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "ratings.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_minims_table_with_several_raters(
    log: FeedbackLog, pictures: list[Path], tmp_path: Path
) -> None:
    report = import_ratings(
        log,
        table(
            tmp_path,
            "0.png,3,Chest X-ray,3,cardiomegaly, chest X-ray",  # unquoted, as MINIM writes
            '0.png,2,chest radiograph,1,"cardiomegaly, chest X-ray"',
            "1.png,1,OCT,3,OCT: healthy retinal layers",
            "1.png,1,OCT,3,OCT: healthy retinal layers",
        ),
    )
    assert (report.added, report.skipped) == (4, [])
    first, second, third, fourth = log.ratings()
    assert (first.rating, first.scale, first.expert_level, first.source) == (3, 3, 3, "human")
    assert first.image_sha256 == pixel_sha256(pictures[0])
    assert first.prompt == second.prompt == "cardiomegaly, chest X-ray"
    assert first.modality == second.modality == "Chest X-ray"
    assert len({third.rater, fourth.rater, second.rater}) == 3
    (agreement,) = report.agreement
    assert (agreement.shared_images, agreement.raters) == (2, 3)
    notes = " ".join(report.notes)
    assert "unquoted commas" in notes and "--scale 5" in notes and "no rater is named" in notes


def test_a_table_read_twice_counts_once(
    log: FeedbackLog, pictures: list[Path], tmp_path: Path
) -> None:
    path = table(tmp_path, "0.png,3,OCT,3,drusen", "0.png,3,OCT,3,drusen", "1.png,1,OCT,3,drusen")
    assert import_ratings(log, path).added == 3
    again = import_ratings(log, path)
    assert (again.added, again.known, len(log.ratings())) == (0, 3, 3)


def test_columns_beside_minims(log: FeedbackLog, pictures: list[Path], tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "0.png,4,OCT,2,drusen,ann,5,simulated,soft,12.5",
        "0.png,3.0,OCT,,drusen,bob,3,human,,",
        header=f"{HEADER},rater,scale,source,comment,seconds",
    )
    import_ratings(log, path)
    ann, bob = log.ratings()
    assert (ann.rater, ann.scale, ann.source, ann.comment) == ("ann", 5, "simulated", "soft")
    assert ann.seconds == 12.5
    assert (bob.rating, bob.scale, bob.expert_level) == (3, 3, None)
    given = import_ratings(log, path, rater="carl", source="simulated")
    assert given.added == 2
    assert len(log.ratings(rater="carl", source="simulated")) == 1, "one rater, one image: newest"


def test_rows_that_cannot_be_used_are_told_and_cost_themselves_alone(
    log: FeedbackLog, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    report = import_ratings(
        log,
        table(
            tmp_path,
            "0.png,3,OCT,3,drusen",
            "gone.png,3,OCT,3,drusen",
            "broken.png,3,OCT,3,drusen",
            "1.png,3,OCT,senior,drusen",
            "2.png,3,OCT,4,drusen",
        ),
    )
    assert report.added == 1
    assert [line.split(":")[0] for line in report.skipped] == ["row 3", "row 4", "row 5", "row 6"]
    assert "gone.png" in report.skipped[0] and "expert_level" in report.skipped[2]


def test_images_are_found_from_the_working_folder_too(
    log: FeedbackLog, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tables").mkdir()
    monkeypatch.chdir(tmp_path)
    report = import_ratings(log, table(tmp_path / "tables", "0.png,2,OCT,1,drusen"))
    assert report.added == 1
    assert log.ratings()[0].image_path == str(pictures[0])


def test_one_rater_who_contradicts_himself_is_told(
    log: FeedbackLog, pictures: list[Path], tmp_path: Path
) -> None:
    path = table(tmp_path, "0.png,1,OCT,3,drusen", "0.png,3,OCT,3,drusen")
    report = import_ratings(log, path, rater="ann")
    assert any("rated twice and differently" in line for line in report.notes)
    assert [one.rating for one in log.ratings()] == [3], "the later row counts"
    assert "one rater" in (report.agreement[0].why or "")


@pytest.mark.parametrize(
    ("rows", "scale", "message"),
    [
        ([], None, "no rows"),
        (["0.png,0,OCT,3,drusen"], None, "row 2: rating 0 is not 1 to 3"),
        (["0.png,2,OCT,3,drusen", "1.png,6,OCT,3,drusen"], None, "row 3: rating 6 is not 1 to 5"),
        (["0.png,4,OCT,3,drusen"], 3, "row 2: rating 4 is not 1 to 3"),
        (["0.png,good,OCT,3,drusen"], None, "rating good"),
        (["0.png,2.5,OCT,3,drusen"], None, r"rating 2\.5"),
        (["0.png,,OCT,3,drusen"], None, r"\(empty\)"),
        (["gone.png,2,OCT,3,drusen"], None, "no row can be used"),
    ],
)
def test_a_table_that_is_refused_adds_nothing(
    log: FeedbackLog,
    pictures: list[Path],
    tmp_path: Path,
    rows: list[str],
    scale: object,
    message: str,
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        import_ratings(log, table(tmp_path, *rows), scale=scale)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "log.sqlite").exists()


def test_a_table_without_ratings(log: FeedbackLog, tmp_path: Path) -> None:
    path = table(tmp_path, "0.png,OCT,drusen", header="path,modal,text")
    with pytest.raises(BadInput, match="no column rating"):
        import_ratings(log, path)

"""Counts, yields, balance and checks of a dataset."""

import pytest
from dataset_samples import RATIO

from medgen.data.dataset_figures import Cell
from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_stats import age_band, evenness, kind_of, measure
from medgen.errors import BadInput


def test_a_dataset_is_counted(folder):
    stats = measure(open_dataset(folder))
    assert (stats.images, stats.tasks, stats.candidates, stats.rejected) == (6, 7, 7, 1)
    assert stats.cells[0] == Cell(
        modality="Chest X-ray", label="cardiomegaly", tasks=1, candidates=1, kept=0
    )
    assert [cell.share for cell in stats.cells] == [0, 1, 1, 1]
    assert [(cell.kept, cell.verified) for cell in stats.cells] == [(0, 0), (2, 2), (2, 2), (2, 2)]
    assert stats.counts["modality"] == {"Chest X-ray": 4, "Fundus": 2}
    assert stats.counts["severity"] == {"(not asked)": 4, "mild": 2}
    assert stats.rejections == {"blurred": 1, "cardiomegaly: contradicted": 1}
    assert (stats.score, stats.control_score) == (0.8, 0.6)


def test_checks_carry_the_figure_of_their_card_and_the_verdicts(folder):
    stats = measure(open_dataset(folder))
    (use,) = stats.checks
    assert (use.check, use.accuracy, use.images) == ("cardiothoracic ratio", RATIO, 3)
    assert use.verdicts == {"confirmed": 2, "contradicted": 1}
    assert stats.unchecked == {"Chest X-ray": ["pleural effusion"]}


def test_balance_is_one_for_equal_counts_and_less_for_others():
    assert evenness([5, 5, 5]) == 1
    assert evenness([10, 0]) == 0
    assert 0.46 < evenness([9, 1]) < 0.48
    assert evenness([3]) is None


def test_reasons_are_counted_without_their_figures():
    assert kind_of("too close to a training image (distance 0.021, nearer than 99.9 %)") == (
        "too close to a training image"
    )
    assert kind_of("ratio 0.47, 0.5 asked") == kind_of("ratio 0.41, 0.5 asked")


@pytest.mark.parametrize(
    ("age", "band"), [(None, "(not asked)"), (0.5, "0-17"), (17.9, "0-17"), (18, "18-39")]
)
def test_ages_fall_into_bands(age, band):
    assert age_band(age) == band


def test_a_folder_without_a_dataset_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no dataset in"):
        open_dataset(tmp_path)
    with pytest.raises(BadInput, match="no folder at"):
        open_dataset(tmp_path / "missing")
    with pytest.raises(BadInput, match="fetch the dataset first"):
        open_dataset("s3://bucket/films")
    (tmp_path / "journal.sqlite").write_bytes(b"")
    with pytest.raises(BadInput, match=r"is not finished.*--resume"):
        open_dataset(tmp_path)

"""Chest segmentation on real films held out of training; needs ../shared/data."""

from pathlib import Path

import numpy as np
import pytest

from medgen.evaluation.chest import cardiothoracic_ratios
from medgen.measure.chest import bundled_segmenter, measure_chest
from medgen.measure.chest_masks import read_masked_films
from medgen.measure.cross_validate_segmenter import film_figures, summary

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def held_out():
    films = read_masked_films(DATA)
    rows = [row for row, split in enumerate(films.splits) if split == "test"]
    return films, rows


def test_lungs_of_held_out_films(held_out):
    films, rows = held_out
    masks = bundled_segmenter().segment(films.films[rows])
    figures = summary([film_figures(films, row, m) for row, m in zip(rows, masks, strict=True)])
    assert figures["both lungs"]["mean"] > 0.88
    assert figures["both lungs"]["films"] == len(rows)


def test_the_two_segmenters_agree_on_the_ratio(held_out):
    films, rows = held_out
    pixels = np.repeat(films.films[rows][..., None], 3, axis=-1)
    ours = [measured.ratio for measured in measure_chest(pixels)]
    pairs = [
        (first, second)
        for first, second in zip(ours, cardiothoracic_ratios(pixels), strict=True)
        if first is not None and second is not None
    ]
    assert len(pairs) > len(rows) / 2
    assert np.mean([abs(first - second) for first, second in pairs]) < 0.05

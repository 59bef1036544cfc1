"""Agreement against published figures and against what must hold of it."""

from __future__ import annotations

import pytest
from samples import rating

from medgen.feedback.agreement import agreements

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), example C: twelve units, four
# observers, values 1-5, some missing; his result for ordinal data is 0.815.
EXAMPLE_C = {
    "A": "1 2 3 3 2 1 4 1 2 . . .",
    "B": "1 2 3 3 2 2 4 1 2 5 . 3",
    "C": ". 3 3 3 2 3 4 2 2 5 1 .",
    "D": "1 2 3 3 2 4 4 1 2 5 1 .",
}


def given(tables: dict[str, str], **more: object) -> list:  # type: ignore[type-arg]
    return [
        rating(unit, int(value), rater=rater, **more)
        for rater, values in tables.items()
        for unit, value in enumerate(values.split())
        if value != "."
    ]


def test_krippendorffs_own_example() -> None:
    (found,) = agreements(given(EXAMPLE_C), "human")
    assert found.alpha == pytest.approx(0.815, abs=0.0005)
    assert (found.raters, found.images, found.shared_images) == (4, 12, 11)
    assert found.interval is not None
    assert found.interval[0] < 0.815 < found.interval[1]


def test_quadratic_weighted_kappa_by_hand() -> None:
    # Disagreement 2 of 4 images by one step: 1 - (2/4) / (expected squared distance 6/4).
    (found,) = agreements(given({"A": "1 2 3 2", "B": "1 3 3 1"}, scale=3), "human")
    (pair,) = found.pairs
    expected = sum((a - b) ** 2 for a in (1, 2, 3, 2) for b in (1, 3, 3, 1)) / 16
    assert pair.kappa == pytest.approx(1 - 0.5 / expected)
    assert (pair.raters, pair.images) == (("A", "B"), 4)


def test_full_agreement_is_one_and_reversal_is_below_zero() -> None:
    (same,) = agreements(given({"A": "1 2 3 4 5", "B": "1 2 3 4 5"}), "human")
    (reversed_,) = agreements(given({"A": "1 2 3 4 5", "B": "5 4 3 2 1"}), "human")
    assert same.alpha == same.pairs[0].kappa == 1
    assert reversed_.alpha is not None and reversed_.alpha < 0


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"A": "1 2 3"}, "one rater"),
        ({"A": "1 2 . .", "B": ". . 3 4"}, "no image has two raters"),
        ({"A": "1 2 .", "B": "1 . 4"}, "1 image has two raters"),
        ({"A": "3 3 3", "B": "3 3 3"}, "all ratings are equal"),
    ],
)
def test_what_cannot_be_measured_is_said(tables: dict[str, str], why: str) -> None:
    (found,) = agreements(given(tables), "human")
    assert found.alpha is None and found.interval is None
    assert found.why is not None and why in found.why


def test_scales_and_sources_are_never_mixed() -> None:
    ratings = [
        *given({"A": "1 2 3", "B": "1 2 3"}, scale=3),
        *given({"A": "5 1 4", "B": "1 5 2"}),
        *given({"C": "1 1 1"}, source="simulated"),
    ]
    three, five = agreements(ratings, "human")
    assert (three.scale, three.alpha, five.scale) == (3, 1.0, 5)
    assert five.alpha is not None and five.alpha < 0
    assert agreements(ratings, "verifier") == []
    assert [one.raters for one in agreements(ratings, "simulated")] == [1]

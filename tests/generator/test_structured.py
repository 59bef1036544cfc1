import pytest

from medgen.generator import structured


def test_missing_values_are_all_zero_and_given_ones_are_flagged():
    vectors = structured.encode([{}, {"cardiothoracic_ratio": 0.46}, {"view": "AP"}])
    assert vectors.shape == (3, structured.WIDTH)
    assert vectors[0].abs().sum() == 0
    assert vectors[1].tolist()[:2] == [0.0, 1.0], "the centre of a number is 0, but it is given"
    assert vectors[2].sum() == 1


def test_numbers_are_ordered_and_standardised():
    low, high = structured.encode([{"cardiothoracic_ratio": 0.42}, {"cardiothoracic_ratio": 0.50}])[
        :, 0
    ]
    assert low == pytest.approx(-1, abs=1e-5)
    assert high == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("condition", [{"heart": 1.0}, {"view": "lateral"}])
def test_unknown_names_and_values_are_refused(condition):
    with pytest.raises(ValueError):
        structured.encode([condition])


def test_the_opposite_mirrors_numbers_keeps_categories_and_is_empty_without_numbers():
    mirrored = structured.opposite({"cardiothoracic_ratio": 0.55, "view": "PA"})
    assert mirrored == {"cardiothoracic_ratio": pytest.approx(0.37), "view": "PA"}
    assert structured.opposite({"view": "PA"}) == {}
    assert structured.opposite({"opacity_right": 0.5, "opacity_left": 0.37}) == {}

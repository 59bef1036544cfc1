import random

import pytest

from medgen.generator import captions


def _row(**values):
    row = {
        "modal": "Chest X-ray",
        "source": "radiography_adult",
        "label": "normal",
        "cardiothoracic_ratio": "0.56",
    }
    return {**row, **values}


def _captions(row, count=200):
    random_ = random.Random(0)
    return [captions.caption(row, random_) for _ in range(count)]


ENLARGED = ("cardiomegaly", "enlarged")


def test_a_wide_heart_of_an_adult_is_called_enlarged_and_a_narrow_one_never():
    assert any(word in text for text in _captions(_row()) for word in ENLARGED)
    narrow = [t.replace("not enlarged", "") for t in _captions(_row(cardiothoracic_ratio="0.42"))]
    assert not any(word in text for text in narrow for word in ENLARGED)


@pytest.mark.parametrize(
    "row",
    [
        _row(view="AP"),
        _row(view="AP supine"),
        _row(source="kermany_pneumonia"),
        _row(age="9"),
        _row(cardiothoracic_ratio="0.495"),
        _row(cardiothoracic_ratio=""),
    ],
)
def test_heart_size_is_not_judged_where_the_ratio_does_not_hold(row):
    for text in _captions(row):
        assert not any(word in text for word in (*ENLARGED, "normal heart"))


def test_opacity_is_said_of_the_patients_denser_side_only_in_disease():
    sick = _row(label="COVID-19", opacity_right="0.7", opacity_left="0.4")
    texts = _captions(sick)
    assert any("right lung" in text for text in texts)
    assert not any("left lung" in text for text in texts)
    healthy = _captions({**sick, "label": "normal"})
    assert not any("opacity" in text for text in healthy)


def test_unlabelled_rows_say_nothing_but_the_modality():
    row = {"modal": "OCT", "source": "srf_bern", "label": "unlabelled"}
    assert captions.findings(row) == []
    assert not any("fluid" in text for text in _captions(row))


def test_structured_conditions_hold_what_is_known():
    conditions = captions.structured_conditions(
        _row(source="ieee8023_covid", view="PA", sex="F", age="64", opacity_left="0.5")
    )
    assert conditions == {
        "source": "ieee8023_covid",
        "cardiothoracic_ratio": 0.56,
        "opacity_left": 0.5,
        "view": "PA",
        "sex": "female",
        "age_group": "adult",
    }


REPORT = "Nodule of the left lung, no effusion. Dense hila; old rib fracture."


def test_a_row_without_a_label_speaks_by_whole_sentences_of_its_own_text():
    row = _row(label="", text=REPORT, cardiothoracic_ratio="", source="elsewhere")
    texts = _captions(row)
    assert any("no effusion" in text for text in texts)
    assert all("left lung, no effusion" in text for text in texts if "no effusion" in text)
    assert len({text.find("Dense hila") for text in texts}) > 2, "their order changes"
    assert any("Dense hila" not in text for text in texts), "details are left out"
    assert not any(text.endswith(("chest X-ray, ", ", ")) for text in texts)
    assert captions.structured_conditions(row) == {}


def test_findings_in_a_text_are_sometimes_called_by_a_synonym_of_their_card():
    row = _row(label="", text="Cardiomegaly of the heart.", cardiothoracic_ratio="")
    texts = _captions(row)
    assert any("Cardiomegaly" in text for text in texts)
    known = captions.finding_cards()["Chest X-ray"]["cardiomegaly"].synonyms
    assert any(name in text for text in texts for name in known)

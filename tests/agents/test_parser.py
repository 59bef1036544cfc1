from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from medgen.agents.language import correct
from medgen.agents.parser import explain_undrawable, parse
from medgen.errors import BadInput
from medgen.knowledge.cards import finding_cards
from medgen.records import Request

TABLE = yaml.safe_load((Path(__file__).parent / "prompts.yaml").read_text(encoding="utf-8"))


def read(prompt, modality=None):
    return parse(Request(prompt=prompt, modality=modality))


def understood(plan):
    return [(f.finding, f.status, f.side, f.location, f.severity) for f in plan.findings]


def expected(case):
    keys = ("side", "location", "severity")
    return [
        (f["finding"], f.get("status", "present"), *(f.get(key) for key in keys))
        for f in case["findings"]
    ]


@pytest.mark.parametrize("case", TABLE, ids=[case["prompt"] for case in TABLE])
def test_prompt_table(case):
    plan = read(case["prompt"], case.get("given"))
    assert plan.modality == case["modality"]
    assert sorted(understood(plan), key=str) == sorted(expected(case), key=str)
    patient = (plan.view, plan.age, plan.age_group, plan.sex)
    assert patient == tuple(case.get(key) for key in ("view", "age", "age_group", "sex"))
    for words in case.get("not_drawable", []):
        assert words in plan.not_drawable


def test_the_table_covers_five_modalities_well():
    assert len(TABLE) >= 80
    for modality in ("Chest X-ray", "Brain MRI", "Chest CT", "Fundus", "OCT"):
        assert sum(case["modality"] == modality for case in TABLE) >= 10


UNSEEN = yaml.safe_load((Path(__file__).parent / "prompts_unseen.yaml").read_text("utf-8"))


@pytest.mark.parametrize("case", UNSEEN, ids=[case["prompt"] for case in UNSEEN])
def test_second_prompt_table(case):
    test_prompt_table(case)


def refusal(prompt, modality=None):
    with pytest.raises(BadInput) as caught:
        read(prompt, modality)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line


@pytest.mark.parametrize("prompt", ["", "   ", "\t\n", "...", "\u200b"])
def test_empty_prompt(prompt):
    assert "empty" in refusal(prompt)


@pytest.mark.parametrize("prompt", ["a" * 10_000, "cardiomegaly, chest X-ray " * 400])
def test_long_prompt_gives_one_short_line(prompt):
    line = refusal(prompt)
    assert "2000" in line and str(len(prompt)) in line


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\u202e", "\ud800"])
def test_control_characters(character):
    assert "control character" in refusal(f"cardiomegaly{character}, chest X-ray")


def test_a_finding_of_another_modality_is_refused_with_a_suggestion():
    line = refusal("drusen, chest X-ray")
    assert "Fundus or OCT" in line and "cardiomegaly" in line
    assert "Brain MRI" in refusal("fundus photograph with a glioma")


@pytest.mark.parametrize(
    "prompt",
    [
        "normal heart with cardiomegaly",
        "chest X-ray, no pneumonia, pneumonia",
        "normal chest X-ray with pneumonia",
        "brain MRI: glioma, no tumor",
        "normal mediastinum with widened mediastinum, CXR",
        "cardiomegaly with a cardiothoracic ratio of 0.40, chest X-ray",
        "fundus, drusen, healthy retina",
    ],
)
def test_contradictions(prompt):
    assert "drop one" in refusal(prompt) or "change one" in refusal(prompt)


def test_what_seems_to_contradict_and_does_not():
    assert understood(read("no left effusion, right effusion, CXR"))
    assert understood(read("heart failure without cardiomegaly, chest X-ray"))
    assert understood(read("history of pneumonia, no pneumonia, chest X-ray"))


def test_missing_or_double_modality():
    assert "Chest CT or Chest X-ray" in refusal("pneumonia")
    assert "Fundus or OCT" in refusal("drusen")
    assert "one modality at a time" in refusal("chest X-ray and brain MRI with glioma")
    assert "split the prompt" in refusal("cardiomegaly and drusen")
    assert "Mammography" in refusal("tumor in the breast")
    assert "unknown modality" in refusal("pneumonia", "Foo")
    assert "Brain MRI" in refusal("glioma", "brain")


def test_inference_of_the_modality_is_said():
    plan = read("glioma")
    assert plan.modality == "Brain MRI" and "Brain MRI" in plan.warnings[0]


def test_the_option_wins_over_the_prompt_and_says_so():
    plan = read("pneumonia, chest CT", "chest x-ray")
    assert plan.modality == "Chest X-ray" and any("wins" in text for text in plan.warnings)


def test_nothing_understood_names_what_can_be_asked():
    assert "Brain MRI" in refusal("hello world")
    line = refusal("chest X-ray with flurbitis")
    assert "flurbitis" in line and "cardiomegaly" in line
    assert "brain metastasis" in refusal("brain MRI with metastazation")


def test_patient_and_projection_errors():
    assert "lateral" in refusal("lateral chest X-ray, pneumonia")
    assert "200" in refusal("200-year-old man, chest X-ray, pneumonia")
    assert "two sexes" in refusal("chest X-ray of a man, a woman, pneumonia")
    assert "two ages" in refusal("5 year old, 60 year old, CXR, pneumonia")
    assert "two projections" in refusal("PA and AP portable chest X-ray, pneumonia")


@pytest.mark.parametrize(
    ("words", "place"),
    [("cerebellar tumor", "cerebellum"), ("posterior fossa tumor", "posterior fossa"),
     ("suprasellar tumor", "suprasellar cistern"), ("fourth ventricle tumor", "fourth ventricle")],
)  # fmt: skip
def test_a_tumour_named_by_its_place_alone_is_of_no_kind(words, place):
    (finding,) = read(f"{words}, brain MRI").findings
    assert (finding.finding, finding.location) == ("brain tumor", place)


def test_neighbouring_signs_of_the_retina_are_not_one():
    assert [f.finding for f in read("venous beading, fundus").findings] == ["diabetic retinopathy"]
    with pytest.raises(BadInput, match="near it: vitreomacular traction"):
        read("vitreomacular adhesion, OCT")  # attached without pulling: no traction


def test_misspelling_is_corrected_aloud():
    plan = read("pnuemonia, chest X-ray")
    assert plan.findings[0].finding == "pneumonia"
    assert 'read "pnuemonia" as "pneumonia"' in plan.warnings


def test_a_plane_is_no_misspelt_virus():
    plan = read("coronal brain MRI, meningioma")
    assert [finding.finding for finding in plan.findings] == ["meningioma"]
    assert "not understood and left out: coronal" in plan.warnings


def test_a_tie_between_two_words_is_not_corrected():
    words = ["hypertension", "hypotension"]
    assert correct("hypertensoin", words) == "hypertension"
    assert correct("hyprtension", words) is None
    assert correct("chst", ["chest"]) is None


def test_unused_words_are_named():
    plan = read("chest X-ray of a rugby captain with pneumonia")
    assert any("rugby captain" in text for text in plan.warnings)


def test_sizes_counts_and_ratios_become_targets_of_the_request():
    plan = read("three nodules, the largest 2 x 1 cm, chest CT")
    targets = {target.name: target for target in plan.measurements}
    assert targets["count"].expected == (3, 3)
    assert targets["diameter"].expected == (16, 24) and targets["diameter"].unit == "mm"
    plan = read("chest X-ray, cardiothoracic ratio 0.62")
    assert [finding.finding for finding in plan.findings] == ["cardiomegaly"]
    assert plan.measurements[0].source == "request"
    assert "impossible" in refusal("chest X-ray, cardiothoracic ratio 1.4")


def test_codes_are_those_of_the_cards():
    for case in TABLE:
        if case["modality"] in finding_cards():
            cards = finding_cards()[case["modality"]]
            for finding in read(case["prompt"], case.get("given")).findings:
                if finding.finding in cards:
                    assert finding.code == cards[finding.finding].code


def test_a_modality_without_a_card_is_planned_without_codes_and_with_a_warning():
    plan = read("breast with tumor, MRI")
    assert [(f.finding, f.code) for f in plan.findings] == [("tumor", None)]
    assert any("planned, not drawn" in text for text in plan.warnings)


def test_explain_undrawable_says_what_draws_and_what_to_do():
    line = explain_undrawable("Breast MRI", ["Chest X-ray", "OCT"])
    assert "Breast MRI" in line and "Chest X-ray, OCT" in line
    assert "modality card" in line and "diffusers" in line and "\n" not in line


WORDS = """
no without possible history of pneumonia pneumonias cardiomegaly left right and or with , . ; ? :
chest X-ray brain MRI OCT fundus glioma normal heart lungs clear 65-year-old man child PA AP not
severe mild 2 cm 3 drusen RLL otherwise ratio cardiothoracic 0.6 is likely ruled out breast ( )
"""


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from(WORDS.split()), max_size=14).map(" ".join))
def test_parse_answers_or_refuses_and_always_the_same(prompt):
    def outcome():
        try:
            return read(prompt).model_dump_json()
        except BadInput as error:
            assert "\n" not in str(error)
            return str(error)

    assert outcome() == outcome()

import pytest

from medgen.agents.pathology import lung_density, measure_of
from medgen.errors import BadInput


def said(texts, *words):
    return any(all(word in text for word in words) for text in texts)


def test_cardiomegaly_means_an_adult_pa_film_and_the_notes_say_so(planned):
    plan = planned("cardiomegaly, chest X-ray")
    assert (plan.view, plan.age_group) == ("PA", "adult")
    assert said(plan.notes, "PA is meant") and said(plan.notes, "adult is meant")
    assert not plan.warnings


def test_nothing_is_assumed_for_what_is_not_measured(planned):
    plan = planned("pneumonia, chest X-ray")
    assert (plan.view, plan.age_group, plan.sex) == (None, None, None)


def test_what_was_said_is_not_overwritten(planned):
    plan = planned("cardiomegaly in a child, chest X-ray")
    assert (plan.view, plan.age_group) == (None, "child")
    assert said(plan.warnings, "abstains", "child")
    plan = planned("cardiomegaly, AP chest X-ray")
    assert (plan.view, plan.age_group) == ("AP", "adult")
    assert said(plan.warnings, "abstains", "AP")


def test_entailed_findings_are_noted_and_never_added(planned):
    plan = planned("bacterial pneumonia, chest X-ray")
    assert [finding.finding for finding in plan.findings] == ["bacterial pneumonia"]
    assert said(plan.notes, "entails", "lung opacity")
    assert said(plan.notes, "excludes", "normal chest")
    plan = planned("heart failure without cardiomegaly, chest X-ray")
    assert not said(plan.notes, "cardiomegaly, ") and said(plan.notes, "usually comes with")


def test_plausibility_warns_and_draws_all_the_same(planned):
    plan = planned("age-related macular degeneration in a 10-year-old, fundus")
    assert said(plan.warnings, "at 10", "unusual") and plan.findings
    assert said(planned("emphysema, chest CT of a child").warnings, "in a child")
    assert not said(planned("emphysema, chest CT, 70 year old").warnings, "unusual")
    assert said(planned("pleural effusion, supine chest X-ray").warnings, "may not be visible")


def test_what_is_implied_and_excluded_is_told_finding_by_finding(planned):
    plan = planned("heart failure without cardiomegaly, chest X-ray")
    told = {(one.relation, one.other) for one in plan.entailed}
    assert ("may imply", "pulmonary edema") in told and ("excludes", "normal chest") in told
    assert not any(other == "cardiomegaly" for _, other in told)
    plan = planned("bacterial pneumonia, chest X-ray")
    assert ("implies", "pneumonia") in {(one.relation, one.other) for one in plan.entailed}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("prostate cancer and cardiomegaly, chest X-ray", "does not show the prostate"),
        ("kidney stone, drusen, fundus", "does not show the kidney"),
        ("woman with prostate cancer, pleural effusion, CXR", "does not go with a female"),
        ("glioblastoma in a 3-year-old, brain MRI", "at 3 is unusual"),
        ("emphysema, chest CT of a child", "in a child is unusual"),
    ],
)
def test_what_does_not_fit_the_modality_or_the_patient_is_implausible(planned, prompt, words):
    plan = planned(prompt)
    assert said(plan.implausible, words)
    assert set(plan.implausible) <= set(plan.warnings)


@pytest.mark.parametrize(
    "prompt",
    [
        "history of breast cancer, pleural effusion, CXR",
        "65-year-old man with emphysema, chest CT",
        "glioma, brain MRI of a woman",
        "scoliosis of the thoracic spine, chest X-ray",
    ],
)
def test_what_fits_is_not_called_implausible(planned, prompt):
    assert planned(prompt).implausible == []


@pytest.mark.parametrize("prompt", ["subretinal fluid, chest CT", "prostate cancer, chest X-ray"])
def test_what_a_modality_cannot_show_at_all_is_refused(planned, prompt):
    with pytest.raises(BadInput):
        planned(prompt)


def test_an_asked_size_belongs_to_its_finding(planned):
    sizes = {f.finding: f.size_mm for f in planned("2 cm nodule, emphysema, chest CT").findings}
    assert sizes["lung nodule"] == 20 and sizes["emphysema"] is None


def test_what_the_generator_has_no_words_for_is_said(planned):
    assert said(planned("glioma left frontal lobe, brain MRI").warnings, "left frontal lobe")
    assert said(planned("severe glaucoma, fundus").warnings, "severe")
    assert not said(planned("severe right pneumonia, CXR").warnings, "no words")
    assert said(planned("pneumothorax, CXR").warnings, "not learned pneumothorax")


def test_density_and_measure_are_inherited_by_what_entails_them(planned):
    plan = planned("severe left bacterial pneumonia, chest X-ray of a child")
    density = lung_density(plan.findings[0], plan)
    assert density["affected"] > density["at_least"] >= density["other"]
    assert lung_density(planned("cardiomegaly, CXR").findings[0], plan) is None
    assert measure_of("normal chest", "Chest X-ray").name == "cardiothoracic ratio"
    assert measure_of("heart failure", "Chest X-ray") is None

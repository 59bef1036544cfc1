import pytest

from medgen.agents.report import PLAN_NOTICE
from medgen.agents.report_markdown import render_markdown
from medgen.knowledge.cards import modality_cards
from medgen.knowledge.facts import sign_id
from medgen.records import Fact


def test_the_report_names_every_finding_with_grade_place_and_code(planned):
    report = planned(
        "65-year-old man with cough, mild cardiomegaly, RLL pneumonia, no pneumothorax, CXR"
    ).report
    assert report.history == 'A 65-year-old man. Given, not drawn: "cough".'
    assert report.technique == f"Frontal chest X-ray, PA view. {PLAN_NOTICE}"
    assert "Mild cardiomegaly (HP:0001640)" in report.findings
    assert "Pneumonia of the right lower lobe (RADLEX:RID5350)" in report.findings
    assert "No pneumothorax (HP:0002107)" in report.findings
    assert report.impression.startswith("1. Mild cardiomegaly. 2. Pneumonia of the right lower")
    assert report.impression.endswith("3. No pneumothorax.")


@pytest.mark.parametrize(
    ("prompt", "gone", "kept"),
    [
        ("cardiomegaly, CXR", "heart", "lung"),
        ("pneumonia, CXR", "lung", "heart"),
        ("pleural effusion, CXR", "pleural space", "heart"),
        ("pleural effusion, CXR", "lung", "set of ribs"),
        ("heart failure, CXR", "lung", "set of ribs"),
        ("no pneumothorax, CXR", "pleural space", "lung"),
        ("glioma, brain MRI", "brain", "sella turcica"),
        ("pituitary tumor, brain MRI", "sella turcica", "meningeal cluster"),
        ("hard exudates, fundus", "macula", "optic disc"),
        ("DME, OCT", "retina", "vitreous body"),
    ],
)
def test_normal_sentences_only_for_regions_that_nothing_touches(planned, prompt, gone, kept):
    plan = planned(prompt)
    normal = modality_cards()[plan.modality].report.normal_findings
    assert normal[gone] not in plan.report.findings
    assert normal[kept] in plan.report.findings
    assert "Not asked for" in plan.report.findings


def test_a_normal_image_gets_the_card_s_impression(planned):
    plan = planned("normal chest X-ray")
    normal = modality_cards()["Chest X-ray"].report.impression_normal
    assert plan.report.impression == f"1. {normal}"
    assert "The lungs are clear" in plan.report.findings
    assert "Not asked for" not in plan.report.findings


def test_the_impression_puts_the_severe_first_and_doubts_last(planned):
    report = planned("possible pneumonia, cardiomegaly, severe scoliosis, chest X-ray").report
    assert report.impression == "1. Severe scoliosis. 2. Cardiomegaly. 3. Possible pneumonia."


def test_doubt_and_past_are_worded(planned):
    report = planned("possible pneumonia, history of tuberculosis, chest X-ray").report
    assert "Possible pneumonia" in report.impression
    assert "history of tuberculosis" in report.history and "tubercul" not in report.impression
    assert '"possible"' not in report.history


@pytest.mark.parametrize(
    ("prompt", "history"),
    [
        ("8-year-old boy, pneumonia, CXR", "An 8-year-old boy."),
        ("infant girl, 6 months old, pneumonia, CXR", "An infant under one year, female."),
        ("woman, pneumonia, CXR", "An adult woman."),
        ("child, pneumonia, CXR", "A child."),
        ("pneumonia, CXR", "None given."),
    ],
)
def test_history(planned, prompt, history):
    assert planned(prompt).report.history == history


def test_markdown_lists_what_was_cited_under_the_numbers_of_the_report(planned):
    text = "enlarged cardiac silhouette"
    stated = f"cardiomegaly on chest X-ray: {text}"
    known = sign_id("Chest X-ray", text)
    facts = [
        Fact(id=known, kind="sign", text=stated, score=1, source="S"),
        Fact(id="CASE:1", kind="case", text="a case", score=0.9, source="somewhere"),
        Fact(id="X:1", kind="term", text="unrelated", score=0.5, source="S"),
    ]
    plan = planned("cardiomegaly | chest X-ray", facts)
    page = render_markdown(plan, facts)
    assert f"{text} [1]" in page and f"1. `{known}`" in page
    assert "`CASE:1`" in page and "X:1" not in page
    assert PLAN_NOTICE in page and page.startswith("# Plan of a synthetic Chest X-ray")
    assert "cardiomegaly \\| chest X-ray" in page
    assert "none known" in render_markdown(planned("OCT, subretinal fluid"), ())


def test_a_modality_without_a_card_gets_a_plain_report(planned):
    report = planned("breast with tumor, MRI").report
    assert report.technique.startswith("Breast MRI.") and report.impression == "1. Tumor."

import re
from pathlib import Path

import pytest

from medgen.agents.llm import Unusable
from medgen.agents.report import PLAN_NOTICE
from medgen.agents.report_draft import ReportDraft, check, question_of
from medgen.agents.report_fields import NOT_STATED
from medgen.agents.report_markdown import render_markdown
from medgen.errors import BadInput
from medgen.knowledge import templates
from medgen.knowledge.cards import modality_cards
from medgen.knowledge.facts import sign_id
from medgen.knowledge.templates import OTHER, report_templates
from medgen.records import Fact
from medgen.settings import settings


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
    assert "| findings | Heart | Cardiomegaly. | HP:0001640 |" in page
    assert "Decided not by rules alone" not in page
    other = plan.model_copy(update={"decided_by": {"parser": "openai:x", "report": "rules"}})
    assert "- parser: openai:x" in render_markdown(other, facts)


def test_a_modality_without_a_card_gets_a_plain_report(planned):
    report = planned("breast with tumor, MRI").report
    assert report.technique.startswith("Breast MRI.") and report.impression == "1. Tumor."


def fields(plan, section):
    return [(f.name, f.value, f.finding) for f in plan.report.fields if f.section == section]


def test_fields_hold_each_finding_where_it_lies_with_its_code(planned):
    plan = planned("65-year-old man, mild cardiomegaly, RLL pneumonia, no pneumothorax, CXR")
    assert fields(plan, "findings") == [
        ("Lungs", "Pneumonia of the right lower lobe.", "pneumonia"),
        ("Pleura", "No pneumothorax.", "pneumothorax"),
        ("Heart", "Mild cardiomegaly.", "cardiomegaly"),
        ("Mediastinum and hila", "The mediastinal outline and both hila are unremarkable.", None),
        ("Bones and chest wall", "No bony abnormality is seen.", None),
    ]
    codes = {f.finding: f.code for f in plan.report.fields if f.section == "findings"}
    assert codes["cardiomegaly"] == "HP:0001640"
    assert [f[2] for f in fields(plan, "impression")] == [
        "cardiomegaly",
        "pneumonia",
        "pneumothorax",
    ]
    assert plan.report.template == "chest-xray-frontal"


def test_the_text_has_the_sections_in_order_and_no_placeholder_left(planned):
    for modality in report_templates():
        text = planned("normal", modality=modality).report.text
        titles = re.findall(r"^([A-Z]+):", text, flags=re.MULTILINE)
        wanted = ["HISTORY", "TECHNIQUE", "COMPARISON", "FINDINGS", "IMPRESSION"]
        assert [title for title in titles if title in wanted] == wanted
        assert "{" not in text and PLAN_NOTICE in text


def test_every_region_of_a_bundled_modality_has_its_field():
    for modality, card in modality_cards().items():
        held = {r for field in report_templates()[modality].fields for r in field.regions}
        assert {region.name for region in card.regions} == held


def test_comparison_is_told_apart_from_symptoms(planned):
    plan = planned("cardiomegaly, unchanged since prior, with cough, chest X-ray")
    ((_, comparison, _),) = fields(plan, "comparison")
    assert "unchanged" in comparison and "cough" not in comparison
    assert "cough" in plan.report.history and "unchanged" not in plan.report.history


def test_what_no_image_shows_is_sorted_and_told(planned):
    plan = planned(
        "65-year-old smoker with cough, possible pneumonia, unchanged since prior, history of "
        "tuberculosis, chest X-ray for lung cancer screening"
    )
    assert [(name, value) for name, value, _ in fields(plan, "history")] == [
        ("Patient", "A 65-year-old patient."),
        ("Symptoms", '"cough".'),
        ("Past history", '"smoker", "history of tuberculosis".'),
        ("Purpose", '"lung cancer screening".'),
        ("Words of doubt", '"possible".'),
    ]
    assert fields(plan, "comparison")[0][1].endswith('"unchanged", "since prior".')
    names = [name for name, _, _ in fields(planned("cardiomegaly, CXR"), "history")]
    assert names == ["Patient", "Indication"]


def test_what_lies_in_no_field_is_not_lost(planned):
    plan = planned("breast with tumor, MRI")
    assert fields(plan, "findings") == [(OTHER, "Tumor.", "tumor")]
    assert "Other: Tumor." in plan.report.text or "FINDINGS: Tumor." in plan.report.text


@pytest.fixture
def own_templates(tmp_path, monkeypatch):
    """A folder of the user's templates, read anew."""
    monkeypatch.setenv("MEDGEN_TEMPLATES", str(tmp_path))
    settings.cache_clear()
    templates.report_templates.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    settings.cache_clear()
    templates.report_templates.cache_clear()


OWN = """
name: our-ward
modality: Chest X-ray
source: our ward's form
technique: "CHEST{view}"
comparison: No old films.
fields:
  - {name: Cor, regions: [heart], normal: "Cor normal."}
  - {name: Pulmo, regions: [lung, lower lobe, upper lobe]}
layout: |
  Ward 7 / {technique}
  Cor = {field:Cor}
  Pulmo = {field:Pulmo}
  {comparison}
  => {impression}
"""


def test_a_template_of_the_user_s_takes_the_place_of_ours(planned, own_templates):
    (own_templates / "ward.yaml").write_text(OWN)
    plan = planned("left lower lobe pneumonia, no pneumothorax, PA chest X-ray")
    assert plan.report.template == "our-ward"
    assert plan.report.text == (
        f"Ward 7 / CHEST, PA view {PLAN_NOTICE}\nCor = Cor normal.\n"
        "Pulmo = Pneumonia of the left lower lobe.\nNo old films.\n"
        "=> 1. Pneumonia of the left lower lobe. 2. No pneumothorax.\n"
    )
    assert "Cor normal." in plan.report.findings
    assert (OTHER, "No pneumothorax.", "pneumothorax") in fields(plan, "findings")
    assert planned("drusen, fundus").report.template == "fundus-photograph"


def test_the_documented_template_is_one(planned, own_templates):
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
    (own_templates / "ward.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    plan = planned("mild cardiomegaly, pleural effusion, chest X-ray")
    assert plan.report.template == "ward-7"
    assert "Heart: Mild cardiomegaly.\n" in plan.report.text
    assert "Rest: Pleural effusion.\n" in plan.report.text
    assert planned("normal chest X-ray").report.impression == "1. Nothing abnormal."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[heart]", "[hart]"), "'hart', which is no region"),
        (("{impression}", "{conclusion}"), "{conclusion}"),
        (("Chest X-ray", "Chest Xray"), "no modality card"),
        (("name: our-ward", "nom: our-ward"), "not valid"),
        (("[heart]", "[lung]"), "stands in two fields"),
        (("fields:", "fields: ["), "not valid"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_clear_line(own_templates, planned, change, message):
    (own_templates / "ward.yaml").write_text(OWN.replace(*change))
    with pytest.raises(BadInput) as caught:
        planned("cardiomegaly, chest X-ray")
    assert message in str(caught.value) and "ward.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_stated_where_nothing_is_known(planned):
    names = {name: value for name, value, _ in fields(planned("heart failure, CXR"), "findings")}
    assert names["Lungs"] == NOT_STATED and names["Heart"] == "Heart failure."


DRAFTED = "mild cardiomegaly, left pleural effusion, no pneumothorax, possible pneumonia, CXR"


@pytest.mark.parametrize(
    ("findings", "impression", "wrong"),
    [
        (
            "There is mild cardiomegaly. A left pleural effusion is seen. Possible pneumonia. "
            "No pneumothorax.",
            "1. Mild cardiomegaly. 2. Left pleural effusion. 3. Possible pneumonia.",
            None,
        ),
        ("Mild cardiomegaly. No pneumothorax. Possible pneumonia.", "1. Cardiomegaly.", "not name"),
        (
            "Mild cardiomegaly. Left pleural effusion. Possible pneumonia. No pneumothorax. "
            "A lung nodule is seen.",
            "1. Cardiomegaly.",
            "nobody asked for",
        ),
        (
            "Mild cardiomegaly. Right pleural effusion. Possible pneumonia. No pneumothorax.",
            "1. Cardiomegaly.",
            "right",
        ),
        (
            "Severe cardiomegaly. Left pleural effusion. Possible pneumonia. No pneumothorax.",
            "1. Cardiomegaly.",
            "severe",
        ),
        (
            "Mild cardiomegaly. Left pleural effusion. Pneumonia. No pneumothorax.",
            "1. Cardiomegaly.",
            "uncertain",
        ),
        (
            "Mild cardiomegaly. Left pleural effusion. Possible pneumonia. Small pneumothorax.",
            "1. Cardiomegaly.",
            "pneumothorax",
        ),
        (
            "Mild cardiomegaly. Left pleural effusion of 12 mm. Possible pneumonia. No "
            "pneumothorax.",
            "1. Cardiomegaly.",
            "12",
        ),
        (
            "Mild cardiomegaly. Left pleural effusion. Possible pneumonia. No pneumothorax. "
            "Glioma cannot be excluded.",
            "1. Cardiomegaly.",
            "lioma",
        ),
        ("", "1. Cardiomegaly.", "both"),
    ],
)
def test_a_draft_must_say_what_the_plan_says(planned, findings, impression, wrong):
    plan = planned(DRAFTED)
    draft, question = ReportDraft(findings=findings, impression=impression), question_of(plan, [])
    if wrong is None:
        check(draft, plan, question)
        return
    with pytest.raises(Unusable, match=wrong):
        check(draft, plan, question)

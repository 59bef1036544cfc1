"""Whole reports, of our own: sections, sentences, what is described against what is denied."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgen.agents.parser import LONGEST_REPORT, parse
from medgen.agents.sections import Sentence, is_report, sentences
from medgen.errors import BadInput
from medgen.records import Request

WHOLE = """Exam: Chest X-ray, PA
Indication: 71-year-old woman with fever, rule out pneumonia.
Comparison: film of last year
Findings: The heart is mildly enlarged. There is a small effusion on the left, and no
pneumothorax. No nodules, masses. The right lung is clear!
Impression:
1. Mild cardiomegaly. 2. Small left effusion; follow-up CT is recommended for a possible nodule.
"""


def read(text: str, modality: str | None = "Chest X-ray"):
    return parse(Request(prompt=text, modality=modality, reading="report"))


def said(plan) -> dict[str, tuple]:
    return {f.finding: (f.status, f.side, f.severity) for f in plan.findings}


def test_sections_and_sentences():
    found = sentences(
        "No heading. Findings: clear lungs; size 2.5 cm.\nImpression: 1. A. 2. B vs. C"
    )
    assert found == [
        Sentence("findings", "No heading"),
        Sentence("findings", "clear lungs"),
        Sentence("findings", "size 2.5 cm"),
        Sentence("impression", "A"),
        Sentence("impression", "B vs. C"),
    ]


def test_wrapped_lines_stay_one_sentence_and_missing_spaces_part_two():
    wrapped = "There is no\nevidence of an effusion.The heart is large."
    assert [one.text for one in sentences(wrapped)] == [
        "There is no evidence of an effusion",
        "The heart is large",
    ]


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("cardiomegaly, chest X-ray", False),
        ("chest X-ray: cardiomegaly. no effusion", False),
        ("Findings: cardiomegaly", True),
        ("Clear lungs. Normal heart. No effusion. No pneumothorax.", True),
        ("", False),
    ],
)
def test_what_looks_like_a_report(text: str, report: bool):
    assert is_report(text) is report


def test_a_whole_report():
    plan = read(WHOLE, None)
    assert plan.modality == "Chest X-ray"
    assert said(plan) == {
        "cardiomegaly": ("present", None, "mild"),
        "pleural effusion": ("present", "left", "mild"),
        "pneumothorax": ("absent", None, None),
        "lung nodule": ("absent", None, None),
        "lung mass": ("absent", None, None),
        "clear lungs": ("present", None, None),
    }
    assert (plan.age, plan.sex, plan.view) == (71, "female", "PA")
    assert any("rule out pneumonia" in words for words in plan.not_drawable)


def test_a_title_tells_the_projection_and_a_sentence_that_lies_does_not():
    assert read("Chest X-ray, AP supine. Clear lungs.").view == "AP supine"
    assert read("Chest X-ray. A tube lying at the carina. Clear lungs.").view is None


def test_history_and_advice_are_no_findings():
    plan = read(
        "History: known emphysema.\nFindings: Clear lungs. CT is advised to exclude a mass."
    )
    assert "emphysema" not in said(plan) and "lung mass" not in said(plan)


def test_what_is_described_wins_over_what_is_denied():
    plan = read("Findings: No pleural effusion. No pneumonia.\nImpression: Small right effusion.")
    assert said(plan)["pleural effusion"] == ("present", "right", "mild")
    assert said(plan)["pneumonia"][0] == "absent"
    assert any("shows and denies" in text and "effusion" in text for text in plan.warnings)


def test_one_side_denied_and_the_other_shown_both_stay():
    plan = read("Findings: No left effusion. Large right effusion.")
    kept = [(f.status, f.side) for f in plan.findings if f.finding == "pleural effusion"]
    assert sorted(kept) == [("absent", "left"), ("present", "right")]


def test_normal_beside_a_finding_means_the_rest():
    shown = said(read("Findings: Emphysema. Normal heart size.\nImpression: No acute disease."))
    assert "normal chest" not in shown and "emphysema" in shown
    shown = said(read("Findings: Scoliosis.\nImpression: No acute abnormality."))
    assert {"scoliosis", "clear lungs", "normal heart size"} <= shown.keys()


def test_nothing_abnormal_is_normal_and_doubt_is_not():
    plan = read("Findings: Heart normal in size. No effusion, no pneumothorax. Lungs are clear.")
    assert "normal chest" in said(plan)
    assert any("nothing abnormal is described" in note for note in plan.notes)
    assert "normal chest" not in said(read("Findings: Clear lungs. Possible rib fracture."))
    # Without a tumor a brain is not yet normal: the card denies one finding only.
    assert "no brain tumor" not in said(read("Findings: No infarct.", "Brain MRI"))


@pytest.mark.parametrize(
    ("sentence", "finding", "status"),
    [
        ("No effusion, consolidation, edema.", "pulmonary edema", "absent"),
        ("No effusion, left pneumothorax.", "pneumothorax", "present"),
        ("Atelectasis versus pneumonia at the left base.", "atelectasis", "uncertain"),
        ("Atelectasis versus pneumonia at the left base.", "pneumonia", "uncertain"),
        ("This may be due to atelectasis.", "atelectasis", "uncertain"),
        ("The pacemaker has been removed.", "pacemaker", "absent"),
        ("Vascular congestion is within normal limits.", "pulmonary congestion", "absent"),
        ("Lungs are clear of infiltrates.", "lung opacity", "absent"),
        ("Sequelae of old granulomatous disease.", "calcified granuloma", "present"),
        ("The effusion has resolved.", "pleural effusion", "absent"),
        ("Status post treatment of pneumonia.", "pneumonia", "historical"),
    ],
)
def test_status_in_a_reports_sentence(sentence: str, finding: str, status: str):
    assert said(read(f"Findings: {sentence}"))[finding][0] == status


def test_findings_that_only_other_modalities_show_are_not_refused():
    plan = read("Findings: Cardiomegaly. Drusen were seen at the eye clinic.")
    assert "cardiomegaly" in said(plan) and "drusen" not in said(plan)


def test_plain_english_is_not_corrected_into_findings():
    plan = read("Findings: The lungs are well inflated. Tube in good position. Passive motion.")
    assert not any(text.startswith("read ") for text in plan.warnings)


def test_a_report_may_be_long_and_not_endless():
    text = "Findings: " + "The lungs are clear. " * 500
    assert len(text) > 2000 and "clear lungs" in said(read(text))
    with pytest.raises(BadInput, match=str(LONGEST_REPORT)):
        read("Clear lungs. " * LONGEST_REPORT)


def test_contradictions_that_a_request_may_not_have():
    text = "Findings: normal heart size.\nImpression: cardiomegaly"
    with pytest.raises(BadInput, match="contradict"):
        parse(Request(prompt=text, modality="Chest X-ray", reading="request"))
    assert "normal heart size" not in said(read(text)) and "cardiomegaly" in said(read(text))


WORDS = """
Findings: Impression: History: no without possible versus or and , . ; ? : 1. 2. left right
cardiomegaly effusion pneumonia clear lungs normal heart size resolved removed pacemaker may be
due to 65-year-old man PA lateral supine MRI drusen history of stable unchanged recommended CT
mild severe 2.5 cm ( )
"""


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.lists(st.sampled_from(WORDS.split()), max_size=25).map(" ".join))
def test_any_report_is_read_or_refused_in_one_line(text: str):
    try:
        plan = read(text)
    except BadInput as error:
        assert "\n" not in str(error)
        return
    shown = {f.finding for f in plan.findings if f.status in ("present", "uncertain")}
    assert not {"cardiomegaly", "normal heart size"} <= shown
    assert not ("normal chest" in shown and "pneumonia" in shown)

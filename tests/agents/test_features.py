from medgen.knowledge.cards import finding_cards
from medgen.knowledge.facts import sign_id
from medgen.records import Fact


def fact(id, kind, text):
    return Fact(id=id, kind=kind, text=text, score=1.0, source="test")


CARD = finding_cards()["Chest X-ray"]["cardiomegaly"]
SIGN = sign_id("Chest X-ray", CARD.signs[0])
FACTS = [
    fact(CARD.code, "term", "cardiomegaly: finding of the heart"),
    fact("RADLEX:RID1385", "term", "heart: anatomical location"),
    fact(SIGN, "sign", f"cardiomegaly on chest X-ray: {CARD.signs[0]}"),
    fact("LIT:7", "sign", "cardiomegaly on chest X-ray: splayed carina"),
    fact("R:1", "relation", "cardiomegaly is measured by the cardiothoracic ratio: expected 0.5-"),
    fact("R:2", "relation", "borderline cardiomegaly excludes normal heart size"),
    fact("HP:0002107", "term", "pneumothorax: finding of the pleural space"),
    fact("CASE:1", "case", "Frontal chest X-ray of an adult without lung disease."),
]


def test_signs_of_the_card_carry_the_retrieved_fact_and_others_none(planned):
    signs = planned("cardiomegaly, chest X-ray", FACTS).signs
    assert signs[0].fact == SIGN and signs[1].fact is None
    assert (signs[-1].text, signs[-1].fact) == ("splayed carina", "LIT:7")


def test_only_what_was_used_is_cited(planned):
    plan = planned("cardiomegaly, chest X-ray", FACTS)
    assert plan.cited == [CARD.code, "RADLEX:RID1385", SIGN, "LIT:7", "R:1"]
    assert planned("cardiomegaly, chest X-ray").cited == []


def test_absent_and_past_findings_have_no_signs(planned):
    assert planned("no cardiomegaly, history of pneumonia, chest X-ray", FACTS).signs == []


def test_a_sign_that_speaks_of_a_denied_finding_is_left_out(planned):
    said = [sign.text for sign in planned("diabetic retinopathy, fundus").signs]
    kept = [sign.text for sign in planned("diabetic retinopathy, no hard exudates, fundus").signs]
    assert any("hard exudates" in text for text in said)
    assert kept and not any("hard exudates" in text for text in kept)


def test_targets_are_the_ranges_of_the_card_with_their_source(planned):
    target = planned("cardiomegaly, chest X-ray").measurements[0]
    assert (target.name, target.expected) == ("cardiothoracic_ratio", CARD.measure.abnormal)
    assert target.source == CARD.measure.source
    target = planned("no cardiomegaly, chest X-ray").measurements[0]
    assert target.expected == CARD.measure.normal


def test_ranges_are_not_claimed_where_they_do_not_hold(planned):
    assert planned("cardiomegaly in a child, chest X-ray").measurements == []
    assert planned("cardiomegaly, AP chest X-ray").measurements == []


def test_opacity_is_asked_on_the_side_that_was_said(planned):
    names = lambda prompt: [t.name for t in planned(prompt).measurements]  # noqa: E731
    assert names("right pneumonia, chest X-ray") == ["opacity_right"]
    assert names("bilateral pneumonia, chest X-ray") == ["opacity_right", "opacity_left"]
    assert names("pneumonia, chest X-ray") == []

"""The case index: real captions, filtered by modality and finding, each caption once."""

from __future__ import annotations

import re

from medgen.knowledge.cards import finding_cards
from medgen.knowledge.case_table import case_id
from medgen.knowledge.cases import bundled_cases, case_labels


def test_captions_of_the_right_modality_come_first(cases):
    facts = cases.search("child with bacterial pneumonia", "Chest X-ray")
    assert len(facts) == 3
    assert "bacterial pneumonia" in facts[0].text and facts[0].kind == "case"
    assert re.fullmatch(r"CASE:[0-9a-f]{10}", facts[0].id)
    assert "kermany_pneumonia" in facts[0].source
    assert facts == sorted(facts, key=lambda fact: (-fact.score, fact.id))


def test_finding_and_modality_filters(cases):
    facts = cases.search("tumour", "Brain MRI", k=5, finding="meningioma")
    assert [fact.text.split(" (")[0] for fact in facts] == ["Brain MRI showing a meningioma."]
    assert cases.search("meningioma", "OCT", finding="meningioma") == []
    assert cases.search("pneumonia", "Breast MRI") == []


def test_captions_are_not_repeated_and_strangers_find_nothing(cases):
    facts = cases.search("chest X-ray of an adult with COVID-19", "Chest X-ray", k=40)
    captions = [fact.text.rsplit(" (", 1)[0] for fact in facts]
    assert len(captions) == len(set(captions)) > 10
    assert cases.search("recipe for chocolate cake") == []
    assert cases.search("  ", "OCT") == [] == cases.search("glioma", k=0)


def test_bundle_holds_no_file_names_and_known_findings():
    groups = bundled_cases()
    assert sum(len(group.ids) for group in groups) > 7000
    ids = [number for group in groups for number in group.ids]
    assert len(ids) == len(set(ids))
    for group in groups:
        assert not re.search(r"\.(jpe?g|png)\b|/images/", group.caption, re.IGNORECASE)
        assert group.license and group.source
        for finding in group.findings:
            assert finding in finding_cards()[group.modality]


def test_labels_map_to_cards_and_ids_are_stable():
    for modality, labels in case_labels().items():
        for findings in labels.values():
            assert set(findings) <= set(finding_cards()[modality])
    assert case_id("brain_mri/x.jpg") == case_id("brain_mri/x.jpg") != case_id("brain_mri/y.jpg")

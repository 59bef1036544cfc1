"""The retriever: what a plan names is found by id, what it means by search, in a fixed order."""

from __future__ import annotations

import pytest

from medgen.agents.retriever import KIND_ORDER, retrieve
from medgen.knowledge.cases import CaseIndex
from medgen.knowledge.store import KnowledgeStore
from medgen.knowledge.workspace import relevance
from medgen.records import Finding, Plan, Region


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return KnowledgeStore.open(tmp_path_factory.mktemp("knowledge"))


@pytest.fixture(scope="module")
def cases():
    return CaseIndex.load()


def cardiomegaly_plan(**changes) -> Plan:
    fields = {
        "prompt": "cardiomegaly, chest X-ray",
        "modality": "Chest X-ray",
        "findings": [Finding(finding="cardiomegaly", code="HP:0001640")],
        "regions": [Region(name="heart", code="RADLEX:RID1385")],
    }
    return Plan(**(fields | changes))


def test_terms_relations_signs_and_cases_of_a_plan(store, cases):
    facts = retrieve(cardiomegaly_plan(), store, cases)
    ids = {fact.id for fact in facts}
    assert {"HP:0001640", "RADLEX:RID1385", "MEDGEN:modality:chest-x-ray"} <= ids
    assert "MEDGEN:sign:chest-x-ray:enlarged-cardiac-silhouette" in ids
    assert "MEDGEN:located-in:cardiomegaly:heart" in ids
    assert "MEDGEN:measured-by:cardiomegaly:cardiothoracic-ratio" in ids
    assert len(ids) == len(facts)
    assert all(fact.score >= relevance()["floor"] for fact in facts)


def test_nothing_that_was_not_asked_for_is_suggested(store, cases):
    facts = retrieve(cardiomegaly_plan(), store, cases)
    own = "cardiomegaly"
    assert all(own in fact.text for fact in facts if fact.kind == "sign")
    assert not [fact for fact in facts if fact.kind == "case"], "no caption carries the finding"
    assert not [fact.text for fact in facts if fact.id.startswith("MEDGEN:implies:heart-failure")]
    free = retrieve(cardiomegaly_plan(findings=[], regions=[]), store, cases)
    assert {fact.kind for fact in free} >= {"sign", "case", "term"}


def test_a_general_finding_has_its_kinds_as_cases(store, cases):
    plan = Plan(prompt="pneumonia", modality="Chest X-ray", findings=[Finding(finding="pneumonia")])
    texts = [fact.text for fact in retrieve(plan, store, cases) if fact.kind == "case"]
    assert len(texts) == 2 and all("pneumonia" in text.lower() for text in texts)


def test_order_is_fixed(store, cases):
    first = retrieve(cardiomegaly_plan(), store, cases)
    assert first == retrieve(cardiomegaly_plan(), store, cases)
    keys = [(KIND_ORDER.index(fact.kind), -fact.score, fact.id) for fact in first]
    assert keys == sorted(keys)


def test_exclusions_appear_only_between_asked_findings(store, cases):
    alone = retrieve(cardiomegaly_plan(), store, cases)
    assert not [fact for fact in alone if "normal chest" in fact.text and "excludes" in fact.id]
    both = cardiomegaly_plan(
        findings=[Finding(finding="cardiomegaly"), Finding(finding="normal heart size")]
    )
    texts = [fact.text for fact in retrieve(both, store, cases) if ":excludes:" in fact.id]
    assert any("cardiomegaly" in text and "normal heart size" in text for text in texts)


def test_signs_of_absent_findings_are_left_out(store, cases):
    plan = cardiomegaly_plan(
        prompt="cardiomegaly without pleural effusion, chest X-ray",
        findings=[
            Finding(finding="cardiomegaly"),
            Finding(finding="pleural effusion", status="absent"),
        ],
    )
    facts = retrieve(plan, store, cases)
    assert "RADLEX:RID34539" in {fact.id for fact in facts}
    assert not [fact.id for fact in facts if fact.kind == "sign" and "costophrenic" in fact.text]


def test_cases_carry_the_finding(store, cases):
    plan = Plan(
        prompt="lung with pneumonia, chest X-ray",
        modality="Chest X-ray",
        findings=[Finding(finding="bacterial pneumonia", side="left")],
    )
    found = [fact for fact in retrieve(plan, store, cases) if fact.kind == "case"]
    assert found and any("bacterial pneumonia" in fact.text for fact in found)


def test_unknown_modality_is_no_error(store, cases):
    plan = Plan(prompt="breast with tumor, MRI", modality="Breast MRI", findings=[])
    assert retrieve(plan, store, cases) == []
    plan = cardiomegaly_plan(findings=[Finding(finding="an unheard-of finding")])
    assert "MEDGEN:modality:chest-x-ray" in {fact.id for fact in retrieve(plan, store, cases)}


def test_very_long_prompt(store, cases):
    facts = retrieve(cardiomegaly_plan(prompt="enlarged heart " * 700), store, cases)
    assert "HP:0001640" in {fact.id for fact in facts}


def test_retrieval_can_be_switched_off(store, cases, monkeypatch):
    from medgen.settings import settings

    plan = Plan(
        prompt="bacterial pneumonia",
        modality="Chest X-ray",
        findings=[Finding(finding="bacterial pneumonia")],
    )
    kinds = {}
    for setting in ("all", "facts", "off"):
        monkeypatch.setenv("MEDGEN_RETRIEVAL", setting)
        settings.cache_clear()
        kinds[setting] = {fact.kind for fact in retrieve(plan, store, cases)}
    settings.cache_clear()
    assert kinds["all"] == {"term", "relation", "sign", "case"}
    assert kinds["facts"] == {"term", "relation", "sign"} and kinds["off"] == set()

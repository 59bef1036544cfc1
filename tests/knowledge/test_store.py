"""The knowledge store: built once, opened by many, answers with ids, and finds no nonsense."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medgen.errors import MedgenError
from medgen.knowledge.cards import finding_cards
from medgen.knowledge.embedder import Embedder, default_embedder
from medgen.knowledge.fact_base import fact_base
from medgen.knowledge.facts import finding_id, sign_id
from medgen.knowledge.store import KnowledgeStore
from medgen.knowledge.workspace import relevance

NONSENSE = [
    "recipe for chocolate cake", "how to change a bicycle tyre", "stock market prices fell",
    "asdf qwerty zxcv", "best pizza in town", "install python on windows", "zzzzzz",
    "weather forecast for Paris", "football league results", "a red sports car on a road",
]  # fmt: skip
RECALL_AT_5 = 0.9
OPEN = """
import sys
from medgen.knowledge.store import KnowledgeStore
store = KnowledgeStore.open(sys.argv[1])
print([fact.id for fact in store.query("enlarged heart", "Chest X-ray")])
"""


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_ready_vectors_cover_the_build(store):
    texts = {f"{entity.name}\n{entity.text}" for entity in fact_base().entities.values()}
    assert len(texts) > 2500
    assert len(texts & set(store.embedder.computed)) < 0.05 * len(texts)


@pytest.mark.parametrize(
    ("text", "modality", "finding"),
    [
        ("heart too wide for the chest", "Chest X-ray", "cardiomegaly"),
        ("fluid blunting the costophrenic angle", "Chest X-ray", "pleural effusion"),
        ("dark gap of fluid under the retina", "OCT", "subretinal fluid"),
        ("mass in the sella growing up to the chiasm", "Brain MRI", "pituitary tumor"),
        ("washed-out hazy picture of the fundus", "Fundus", "cataract"),
    ],
)
def test_the_right_sign_is_found(store, text, modality, finding):
    own = {sign_id(modality, sign) for sign in finding_cards()[modality][finding].signs}
    facts = store.query(text, modality, top_k=3)
    assert own & {fact.id for fact in facts if fact.kind == "sign"}


def hits(store, name: str) -> float:
    entries = yaml.safe_load((Path(__file__).parent / name).read_text())
    found = 0
    for entry in entries:
        card = finding_cards()[entry["modality"]][entry["finding"]]
        own = {sign_id(card.modality, sign) for sign in card.signs}
        facts = store.query(entry["query"], card.modality, top_k=5)
        found += bool(own & {fact.id for fact in facts})
    return found / len(entries)


def test_recall_over_paraphrases_of_all_captioned_findings(store):
    entries = yaml.safe_load((Path(__file__).parent / "paraphrases.yaml").read_text())
    named = {(entry["modality"], entry["finding"]) for entry in entries}
    captioned = {
        (modality, card.name)
        for modality, cards in finding_cards().items()
        for card in cards.values()
        if card.captioned
    }
    assert captioned <= named
    assert hits(store, "paraphrases.yaml") >= RECALL_AT_5


def test_recall_over_loose_wordings_of_a_hundred_findings(store):
    entries = yaml.safe_load((Path(__file__).parent / "loose_queries.yaml").read_text())
    assert len({(entry["modality"], entry["finding"]) for entry in entries}) == 100
    assert hits(store, "loose_queries.yaml") >= RECALL_AT_5


def test_nonsense_and_scraps_find_nothing(store):
    for text in [*NONSENSE, "", "  ", "ab", "\n\t"]:
        assert store.query(text) == [], text


def test_facts_are_ordered_unique_and_above_the_floor(store):
    facts = store.query("pneumonia with pleural effusion", "Chest X-ray", ["pneumonia"], top_k=20)
    assert len(facts) == 20
    assert len({fact.id for fact in facts}) == 20
    assert facts == sorted(facts, key=lambda fact: (-fact.score, fact.id))
    assert all(fact.score >= relevance()["floor"] for fact in facts)
    assert store.query("pneumonia", "Chest X-ray", top_k=0) == []


def test_modality_filters_the_looks(store):
    facts = store.query("consolidation with air bronchograms", "Chest CT", top_k=20)
    assert facts and not [fact.id for fact in facts if ":chest-x-ray:" in fact.id]
    text = store.fact("RADLEX:RID43255", "Chest CT").text
    assert text.startswith("consolidation")
    assert store.fact("HP:0001640", "OCT") is None
    assert store.fact("no such id") is None


def test_side_is_kept_only_when_asked(store):
    plain = {fact.text for fact in store.query("retina of the eye", "Fundus", top_k=20)}
    sided = {fact.text for fact in store.query("retina of the left eye", "Fundus", top_k=20)}
    assert not any(text.startswith("left") for text in plain)
    assert any("left" in text for text in sided)


def test_relations_are_typed(store):
    relations = {fact.id: fact.text for fact in store.relations("cardiomegaly", "Chest X-ray")}
    assert relations["MEDGEN:located-in:cardiomegaly:heart"]
    assert "0.5" in relations["MEDGEN:measured-by:cardiomegaly:cardiothoracic-ratio"]
    assert any("excludes" in text and "normal heart size" in text for text in relations.values())
    assert store.relations("no such thing") == []


def test_names_lead_to_facts_and_facts_to_their_neighbours(store):
    assert store.named("Pleural effusion")[0] == "RADLEX:RID34539"
    assert store.named("no such thing at all") == []
    texts = {fact.text for fact in store.relations_of("RADLEX:RID34539", "Chest X-ray")}
    assert any("is measured by" in text and "200" in text for text in texts)
    assert any("blunted costophrenic angle" in text for text in texts)
    assert any("Exudative pleural effusion is a kind of pleural effusion" in text for text in texts)
    assert store.counts()["wide terms"] > 2000


def test_imported_terms_are_asked_too_and_stand_beside_the_curated(tmp_path, store):
    from terminology_files import write_obo

    from medgen.knowledge.shelf import Shelf
    from medgen.knowledge.store import IMPORTED

    (tmp_path / store.folder.name).symlink_to(store.folder)
    path = write_obo(tmp_path / "x.obo", ["unheard-of lung widget", "heart"])
    shelf = Shelf(tmp_path / IMPORTED, store.embedder, write=True)
    shelf.take("obo", path)
    shelf.close()
    opened = KnowledgeStore.open(tmp_path)
    facts = opened.query("unheard-of lung widget", "Chest X-ray", top_k=5)
    assert facts[0].id == "SYN:0" and len([f for f in facts if f.id.startswith("SYN:")]) <= 2
    assert opened.fact("SYN:0").text == "unheard-of lung widget"
    assert opened.relations_of("SYN:1")[0].text == "heart is a unheard-of lung widget"
    plain = [fact.id for fact in store.query("big heart shadow", "Chest X-ray", top_k=3)]
    assert opened.query("big heart shadow", "Chest X-ray", top_k=3)[0].id == plain[0]


def test_every_cited_id_exists(store):
    for modality, cards in finding_cards().items():
        for card in cards.values():
            assert store.fact(finding_id(card), modality), card.name
            for sign in card.signs:
                fact = store.fact(sign_id(modality, sign), modality)
                assert fact and card.name in fact.text and sign in fact.text


def test_reopened_store_answers_the_same_and_nothing_is_written(
    store, store_root, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WORKSPACE=elsewhere\nTOP_K=1\n")
    before = snapshot(store_root)
    again = KnowledgeStore.open(store_root)
    for text in ("enlarged heart", "swelling around a brain tumour"):
        assert again.query(text) == store.query(text)
    assert snapshot(store_root) == before
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
    assert "WORKSPACE" not in os.environ
    assert capfd.readouterr() == ("", "")


def test_a_store_of_something_else_is_built_again(store, store_root):
    (store.folder / "fingerprint").write_text("something else")
    told = []
    again = KnowledgeStore.open(store_root, progress=told.append)
    assert len(told) == 1 and str(again.folder) in told[0]
    assert again.query("enlarged heart") == store.query("enlarged heart")
    assert not [
        path.name for path in store_root.iterdir() if path.name.startswith(f".{again.folder.name}")
    ]


def test_another_embedder_gets_another_store(tmp_path, store, monkeypatch):
    other = Embedder(default_embedder().folder)
    monkeypatch.setattr(other, "fingerprint", "0" * 16)
    base = fact_base()
    small = type(base)()
    small.entities = dict(list(base.entities.items())[:5])
    monkeypatch.setattr("medgen.knowledge.store.fact_base", lambda: small)
    opened = KnowledgeStore.open(tmp_path, embedder=other)
    assert opened.folder.name != store.folder.name
    assert len(opened.embedder.computed) == 5


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(base):
        raise RuntimeError("no disk")

    monkeypatch.setattr("medgen.knowledge.workspace.custom_kg", fail)
    with pytest.raises(RuntimeError):
        KnowledgeStore.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MedgenError, match="MEDGEN_KNOWLEDGE"):
        KnowledgeStore.open(tmp_path / "file" / "store")


def test_two_processes_open_at_once(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    answers = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], answers
    assert answers[0] == answers[1] and "enlarged-cardiac-silhouette" in answers[0][0]
    assert answers[0][1] == ""
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_query_works_inside_a_running_event_loop(store):
    import asyncio

    async def ask():
        return store.query("enlarged heart", "Chest X-ray")

    assert asyncio.run(ask()) == store.query("enlarged heart", "Chest X-ray")


def test_a_finding_of_two_modalities_says_once_what_they_share(store):
    fact = store.fact("HP:0000501")
    assert fact.text.count("glaucoma (also") == 1
    assert fact.text.count("side: one or both eyes") == 1
    assert "Fundus: location: optic disc" in fact.text
    assert "OCT: location: nerve fiber" in fact.text

"""The knowledge commands' own wiring: stats, show, similar, and imports with the bundled CLIP."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medgen.errors import BadInput
from medgen.graphs import knowledge
from medgen.graphs.collaborators import shared_collaborators
from medgen.settings import settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chat_server import ChatServer

OBO = "format-version: 1.2\n\n[Term]\nid: SYN:1\nname: unheard-of lung widget\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A knowledge folder of this module's own: what it imports is nobody else's."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture
def fresh(folder, monkeypatch):
    """Collaborators loaded anew, before and after: imports are seen by the next process only."""
    monkeypatch.setenv("MEDGEN_KNOWLEDGE", str(folder))
    settings.cache_clear()
    shared_collaborators.cache_clear()
    yield
    shared_collaborators.cache_clear()
    monkeypatch.undo()
    settings.cache_clear()


def picture(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_terms_and_cases_are_imported_and_found(tmp_path, fresh):
    (tmp_path / "x.obo").write_text(OBO)
    steps = []
    taken = knowledge.import_terms("obo", tmp_path / "x.obo", lambda *step: steps.append(step[0]))
    assert taken.terms == 1 and set(steps) == {"reading", "embedding", "indexing"}
    picture(tmp_path / "a.png", 1)
    picture(tmp_path / "b.png", 2)
    (tmp_path / "table.csv").write_text(
        "path,text,modal\na.png,Film with a pleural effusion.,Chest X-ray\n"
        "b.png,A film with cardiomegaly.,Chest X-ray\nmissing.png,Another film.,Chest X-ray\n"
    )
    cases = knowledge.import_cases(tmp_path / "table.csv")
    assert (cases.rows, cases.images, cases.unreadable_images) == (3, 2, 1)
    stats = knowledge.stats()
    assert stats.counts["imported obo terms"] == 1 and stats.cases["imported"] == 3
    assert stats.findings["Chest X-ray"] >= 40 and Path(stats.folder).is_absolute()
    assert knowledge.query("unheard-of lung widget").facts[0].id == "SYN:1"
    assert knowledge.show("SYN:1").fact.source == "obo"
    facts = knowledge.similar(image=tmp_path / "b.png", top_k=1).facts
    assert facts[0].text.startswith("A film with cardiomegaly") and facts[0].score > 0.99
    facts = knowledge.similar(image=tmp_path / "b.png", finding="pleural effusion").facts
    assert [fact.text.startswith("Film with a pleural") for fact in facts] == [True]
    found = knowledge.similar("heart too big", finding="cardiomegaly", modality="cxr").facts
    assert any("A film with cardiomegaly" in fact.text for fact in found)


def test_a_finding_is_shown_with_looks_and_ranges(fresh):
    shown = knowledge.show("pleural effusion", "chest CT")
    assert shown.fact.id == "RADLEX:RID34539" and "location:" in shown.fact.text
    texts = [fact.text for fact in shown.relations]
    assert any("depth of the pleural fluid" in text and "30 to 100" in text for text in texts)
    assert any(fact.kind == "sign" for fact in shown.relations)


def test_what_a_provider_says_of_a_key_is_neither_shown_nor_kept(
    tmp_path, folder, fresh, monkeypatch
):
    pytest.importorskip("langchain_openai")
    server = ChatServer(lambda asked: "unused")
    server.fault = 401
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    monkeypatch.setenv("MEDGEN_LLM", "openai:any")
    settings.cache_clear()
    (tmp_path / "a.txt").write_text("Kerley lines are a sign of edema.")
    with pytest.raises(BadInput, match="refuses the key") as caught:
        knowledge.import_literature([tmp_path / "a.txt"])
    server.close()
    assert server.asked and "sk-of" not in str(caught.value)
    kept = [path for path in (folder / "literature").rglob("*") if path.is_file()]
    assert kept and not any(b"sk-of" in path.read_bytes() for path in kept)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: knowledge.show("no such thing at all"), "nothing is known"),
        (lambda: knowledge.similar(), "one of them"),
        (lambda: knowledge.similar("a", image=Path("b")), "one of them"),
        (lambda: knowledge.import_terms("obo", Path("/no/such.obo")), "no OBO file"),
        (lambda: knowledge.import_cases(Path("/no/such.csv")), "no table"),
        (lambda: knowledge.import_literature([Path("x.txt")]), "MEDGEN_LLM"),
    ],
)
def test_bad_input_is_one_clear_line(call, says, fresh):
    with pytest.raises(BadInput, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)

"""Imported terms: found by meaning and by words, idempotent, and a killed import loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from terminology_files import OBO, OWL, write_obo, write_rf2

from medgen.errors import BadInput, MedgenError
from medgen.knowledge.embedder import default_embedder
from medgen.knowledge.shelf import Shelf
from medgen.knowledge.workspace import ready_vectors

KILLED = """
import os, signal, sys
from pathlib import Path
from medgen.knowledge import shelf
from medgen.knowledge.embedder import default_embedder
from medgen.knowledge.workspace import ready_vectors
shelf.TEXTS_A_COMMIT = 16
def progress(step, done, total):
    if step == "embedding":
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
shelf.Shelf(folder / "shelf", ready_vectors(default_embedder()), write=True).take(
    "obo", folder / "x.obo", progress
)
"""


@pytest.fixture(scope="module")
def embedder():
    return ready_vectors(default_embedder())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, embedder):
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "x.obo").write_text(OBO)
    (folder / "RadLex.owl").write_text(OWL)
    writing = Shelf(folder / "shelf", embedder, write=True)
    for kind, name in (("obo", "x.obo"), ("radlex", "RadLex.owl")):
        assert writing.take(kind, folder / name).terms == 3
    assert writing.take("snomed", write_rf2(folder / "rf2")).changed == 3
    writing.close()
    return Shelf(folder / "shelf", embedder)


def ask(shelf: Shelf, text: str, k: int = 3, floor: float = 0.3) -> list[str]:
    return [fact.id for fact in shelf.search(text, shelf.embedder([text])[0], k, floor)]


def test_terms_are_found_by_meaning_by_synonym_and_by_id(shelf):
    assert shelf.counts() == {"obo": 3, "radlex": 3, "snomed": 3}
    assert set(ask(shelf, "an airway that is too wide")) >= {"SYN:2", "RADLEX:RID900001"}
    # The vector knows the name alone; the synonym is found by its words.
    assert "SYN:2" in ask(shelf, "dilated bronchus")
    fact = shelf.fact("SYN:1")
    assert fact.text.startswith("lung disorder (also disorder of the lung)")
    assert "SNOMEDCT:111" in fact.text
    assert shelf.fact("SYN:99") is None
    assert ask(shelf, "recipe for chocolate cake") == []


def test_relations_go_both_ways(shelf):
    texts = [fact.text for fact in shelf.relations("SYN:2")]
    assert texts == ["widened bronchus is a lung disorder", "widened bronchus part of chest"]
    assert [fact.text for fact in shelf.relations("SYN:3")] == ["widened bronchus part of chest"]


def test_twice_is_once_and_a_new_release_changes_what_is_new(tmp_path, embedder):
    path = write_obo(tmp_path / "x.obo", ["lung", "pleural fluid", "heart"])
    shelf = Shelf(tmp_path / "shelf", embedder, write=True)
    assert shelf.take("obo", path).changed == 3
    again = shelf.take("obo", path)
    assert again.already_there and again.changed == 0 and again.relations == 0
    write_obo(path, ["lung", "fracture of a rib", "heart", "kidney"])
    renewed = shelf.take("obo", path)
    assert (renewed.terms, renewed.changed, len(shelf)) == (4, 2, 4)
    assert "SYN:1" in ask(shelf, "broken rib") and "SYN:1" not in ask(shelf, "pleural fluid")


def test_a_killed_import_goes_on_where_it_stopped(tmp_path, embedder):
    names = [f"finding number {number}" for number in range(60)]
    path = write_obo(tmp_path / "x.obo", names)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert run.returncode == -signal.SIGKILL
    shelf = Shelf(tmp_path / "shelf", embedder, write=True)
    assert len(shelf) == 60 and len(shelf.vectors) < 60
    told = []
    result = shelf.take("obo", path, lambda step, done, total: told.append((step, total)))
    assert result.changed == 0 and ("embedding", 60 - 16) in told
    whole = Shelf(tmp_path / "whole", embedder, write=True)
    whole.take("obo", path)
    for text in ("finding number 7", "finding number 59"):
        assert ask(shelf, text) == ask(whole, text)


def test_an_earlier_edition_comes_back(tmp_path, embedder):
    path = write_obo(tmp_path / "x.obo", ["lung", "pleural fluid"])
    shelf = Shelf(tmp_path / "shelf", embedder, write=True)
    shelf.take("obo", path)
    write_obo(path, ["lung", "fracture of a rib"])
    shelf.take("obo", path)
    write_obo(path, ["lung", "pleural fluid"])
    back = shelf.take("obo", path)
    assert back.changed == 1 and not back.already_there
    assert "SYN:1" in ask(shelf, "pleural fluid")


def test_questions_are_answered_while_terms_wait_for_vectors(tmp_path, embedder, monkeypatch):
    shelf = Shelf(tmp_path / "shelf", embedder, write=True)
    shelf.take("obo", write_obo(tmp_path / "x.obo", ["lung", "heart"]))
    monkeypatch.setattr(shelf, "_embed", lambda progress: 1 / 0)
    names = ["lung", "heart", "pleural fluid"]
    with pytest.raises(ZeroDivisionError):
        shelf.take("obo", write_obo(tmp_path / "y.obo", names))
    reading = Shelf(tmp_path / "shelf", embedder)
    assert len(reading) == 3 and "SYN:2" not in ask(reading, "pleural fluid")
    assert ask(reading, "heart")[0] == "SYN:1"


def test_bad_files_leave_what_was_there(shelf, tmp_path, embedder):
    writing = Shelf(shelf.folder, embedder, write=True)
    (tmp_path / "x.obo").write_text("nothing here")
    with pytest.raises(BadInput):
        writing.take("obo", tmp_path / "x.obo")
    assert len(writing) == 9


def test_another_embedder_is_noticed(shelf, embedder, monkeypatch):
    other = ready_vectors(default_embedder())
    monkeypatch.setattr(other, "fingerprint", "0" * 16)
    with pytest.raises(MedgenError, match="another model"):
        Shelf(shelf.folder, other)

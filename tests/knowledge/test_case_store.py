"""Cases of a user's table: found by words and by image, filtered; IVF answers like exact search."""

from __future__ import annotations

import numpy as np
import pytest

from medgen.errors import BadInput
from medgen.knowledge.case_store import CaseStore
from medgen.knowledge.case_table import case_id, findings_in
from medgen.knowledge.cases import CaseIndex, bundled_cases
from medgen.knowledge.embedder import default_embedder
from medgen.knowledge.nearest import Nearest, VectorFile, build_index, index_state, lists_for
from medgen.knowledge.workspace import ready_vectors

TABLE = """path,text,modal,source
a.png,Frontal film with a large pleural effusion on the left.,Chest X-ray,mine
b.png,Normal chest film without pleural effusion.,Chest X-ray,mine
c.png,Axial slice with a spiculated lung mass.,Chest CT,mine
d.png,Frontal film with a large pleural effusion on the left.,Chest X-ray,mine
"""


@pytest.fixture(scope="module")
def embedder():
    return ready_vectors(default_embedder())


def colours(paths):
    """Image vectors from file names: a is x, b is y, the others z; c cannot be read."""
    vectors = np.zeros((len(paths), 3), dtype=np.float32)
    for row, path in enumerate(paths):
        vectors[row, {"a": 0, "b": 1}.get(path.stem, 2)] = path.stem != "c"
    return vectors, [path.stem != "c" for path in paths]


@pytest.fixture(scope="module")
def store(tmp_path_factory, embedder):
    folder = tmp_path_factory.mktemp("cases")
    (folder / "table.csv").write_text(TABLE)
    store = CaseStore(folder / "cases", embedder, write=True)
    taken = store.take(folder / "table.csv", colours, "colours")
    assert (taken.rows, taken.new, taken.captions) == (4, 4, 3)
    assert (taken.images, taken.unreadable_images) == (3, 1)
    assert store.take(folder / "table.csv", colours, "colours").new == 0
    return store


def test_findings_are_read_and_denials_heard():
    assert findings_in("Large pleural effusion and cardiomegaly", "Chest X-ray") == [
        "pleural effusion", "cardiomegaly",
    ]  # fmt: skip
    assert findings_in("No evidence of pleural effusion", "Chest X-ray") == []
    assert findings_in("Effusion", "Somewhere else") == []


def test_by_words_with_filters(store):
    best = store.search("large effusion on the left side")[0]
    assert best.id == case_id("a.png") or best.id == case_id("d.png")
    assert best.cases == 2 and best.findings == ["pleural effusion"] and best.source == "mine"
    assert [case.path for case in store.search("film", "Chest CT")] == ["c.png"]
    found = store.search("film", "Chest X-ray", 5, ["pleural effusion"])
    assert len(found) == 1 and found[0].text.startswith("Frontal")
    assert store.search("film", "OCT") == [] == store.search("  ")


def test_by_image_with_filters(store):
    assert store.search_image(np.array([0, 1, 0.1]))[0].path == "b.png"
    paths = [case.path for case in store.search_image(np.array([0, 1, 0.1]), k=9)]
    assert "c.png" not in paths and len(paths) == 3
    only = store.search_image(np.array([0, 1, 0.1]), "Chest X-ray", 9, ["pleural effusion"])
    assert {case.path for case in only} == {"a.png", "d.png"}


def test_images_are_looked_for_beside_their_own_table(tmp_path, embedder):
    looked: list = []

    def seen(paths):
        looked.extend(paths)
        return np.ones((len(paths), 3), dtype=np.float32), [path.is_file() for path in paths]

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        table = f"path,text,modal\n{name}.png,Film {name}.,Chest X-ray\n"
        (tmp_path / name / "table.csv").write_text(table)
    store = CaseStore(tmp_path / "cases", embedder, write=True)
    store.take(tmp_path / "one" / "table.csv")
    two = store.take(tmp_path / "two" / "table.csv", seen)
    assert looked == [tmp_path / "two" / "two.png"] and two.unreadable_images == 1
    (tmp_path / "two" / "two.png").touch()
    assert store.take(tmp_path / "two" / "table.csv", seen).images == 1  # there by now
    assert store.take(tmp_path / "one" / "table.csv", seen).unreadable_images == 1


def test_own_cases_join_the_bundled_ones(store, embedder):
    index = CaseIndex(bundled_cases(), embedder, store)
    facts = index.search("large pleural effusion on the left", "Chest X-ray")
    assert "pleural effusion" in facts[0].text and "one of 2 cases" in facts[0].text
    assert index.search_image(np.array([1, 0, 0]), k=1)[0].kind == "case"
    assert CaseIndex(bundled_cases(), embedder).search_image(np.array([1, 0, 0])) == []


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("path,text\na,b\n", "no column modal"),
        ("path,text,modal\n,b,c\n", "line 2"),
        (None, "no table"),
    ],
)
def test_bad_tables_are_one_clear_line(tmp_path, embedder, table, says):
    path = tmp_path / "table.csv"
    if table is not None:
        path.write_text(table)
    with pytest.raises(BadInput, match=says):
        CaseStore(tmp_path / "cases", embedder, write=True).take(path)


def test_many_vectors_get_lists_and_answer_as_the_exact_index(tmp_path):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16))
    vectors = centres[rng.integers(40, size=4000)] + 0.3 * rng.normal(size=(4000, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    answers = []
    for name, exact in (("exact", 10_000), ("lists", 1_000)):
        folder = tmp_path / name
        folder.mkdir()
        VectorFile(folder, 16).write(np.arange(4000), vectors)
        build_index(folder, 16, exact)
        nearest = Nearest(folder)
        assert nearest.lists == (lists_for(4000) if name == "lists" else 0)
        assert index_state(folder)["count"] == 4000
        allowed = np.zeros(4000, dtype=bool)
        allowed[::50] = True
        answers.append(
            [
                {*nearest.search(vectors[row].astype(np.float32), 10, mask)[0].tolist()}
                for row in range(0, 4000, 100)
                for mask in (None, allowed)
            ]
        )
    shared = [len(a & b) / len(a) for a, b in zip(*answers, strict=True)]
    assert np.mean(shared) > 0.9
    assert all(rows <= set(range(0, 4000, 50)) for rows in answers[1][1::2])

"""The knowledge store: facts found by meaning, by words and over the graph, each with its id.

A LightRAG workspace over cards and wide tables (see `medgen.knowledge.workspace`), opened for
reading only, beside the user's imported terms. Built on first use into a cache folder named by a
fingerprint. Knows retrieval; nothing of plans or prompts.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgen.errors import MedgenError
from medgen.knowledge.embedder import CachedEmbedder, Embedder, default_embedder
from medgen.knowledge.fact_base import fact_base
from medgen.knowledge.fusion import Evidence, denies, rank
from medgen.knowledge.lay import in_field_words
from medgen.knowledge.lightrag_host import make_lightrag, run
from medgen.knowledge.literature import Literature
from medgen.knowledge.shelf import Shelf
from medgen.knowledge.words import search_words
from medgen.knowledge.workspace import (
    FACTS_FILE,
    SIDES,
    WORDS_FILE,
    build,
    complete,
    fingerprint,
    ready_vectors,
    relevance,
)
from medgen.records import Fact
from medgen.settings import settings

IMPORTED, LITERATURE = "imported", "literature"
CARD = "MEDGEN:card:"
EXPANDED = 12
Progress = Callable[[str], None]


def default_folder() -> Path:
    """`MEDGEN_KNOWLEDGE`, else `medgen/knowledge` in the user's cache folder."""
    chosen = settings().knowledge
    if chosen is not None:
        return chosen.expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "medgen" / "knowledge"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One builder a folder: others wait here and then find the finished store."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    except OSError as error:
        raise MedgenError(
            f"cannot write the knowledge store in {folder} ({error}): set MEDGEN_KNOWLEDGE to a "
            "folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


class KnowledgeStore:
    """A read-only knowledge store; make one with `KnowledgeStore.open()`."""

    def __init__(self, folder: Path, embedder: CachedEmbedder) -> None:
        self.folder = folder
        self.embedder = embedder
        stored = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        self._facts: dict[str, dict[str, Any]] = stored["facts"]
        self._cards: dict[str, dict[str, Any]] = stored["cards"]
        self._names: dict[str, str] = stored["names"]
        self._rag = run(make_lightrag(folder, embedder))
        uri = f"{(folder / WORDS_FILE).as_uri()}?mode=ro&immutable=1"
        self._words = sqlite3.connect(uri, uri=True, check_same_thread=False)
        shelf = folder.parent / IMPORTED
        self.imported = Shelf(shelf, embedder) if Shelf.exists(shelf) else None
        read = folder.parent / LITERATURE
        self.literature = Literature(read, embedder) if Literature.exists(read) else None

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        embedder: Embedder | None = None,
        progress: Progress | None = None,
    ) -> KnowledgeStore:
        """Open the store, building it first where it is missing or made of something else.

        Args:
            folder: Holds one sub-folder a fingerprint, and the imported terms;
                `MEDGEN_KNOWLEDGE` or the user's cache folder when not given.
            embedder: Another sentence model than the bundled one.
            progress: Told one line before a build starts.

        Raises:
            MedgenError: The folder cannot be written or the embedder is not installed.
        """
        root = Path(folder).expanduser().resolve() if folder else default_folder()
        vectors = ready_vectors(embedder or default_embedder())
        mark = fingerprint(vectors)
        target = root / mark
        if not complete(target, mark):
            with _locked(root):
                if not complete(target, mark):
                    if progress:
                        progress(f"building the knowledge store in {target}")
                    build(target, fact_base(), vectors, mark)
        return cls(target, vectors)

    def close(self) -> None:
        """Let the storages go."""
        run(self._rag.finalize_storages())
        self._words.close()
        if self.imported:
            self.imported.close()
        if self.literature:
            self.literature.close()

    def counts(self) -> dict[str, int]:
        """How many facts there are: terms, signs, relations, cards, and imported by source."""
        counts: dict[str, int] = {"cards": len(self._cards)}
        for entry in self._facts.values():
            name = f"{entry['kind']}s" if not entry.get("wide") else "wide terms"
            counts[name] = counts.get(name, 0) + 1
        if self.imported:
            for source, number in self.imported.counts().items():
                counts[f"imported {source} terms"] = number
            counts["imported relations"] = self.imported.relations_count()
        if self.literature:
            counts |= {f"literature {what}": n for what, n in self.literature.counts().items()}
        return counts

    def fact(self, fact_id: str, modality: str | None = None) -> Fact | None:
        """The fact with this id as it holds in a modality, or None; its score is 1."""
        own = self._fact(fact_id, modality, 1.0)
        if own is None and self.imported is not None and fact_id not in self._facts:
            return self.imported.fact(fact_id)
        return own

    def named(self, name: str) -> list[str]:
        """Ids of the facts that go by a name: those called so first, then those that hold it."""
        own = name.strip().lower()
        exact = [fact_id for fact_id, known in self._names.items() if known.lower() == own]
        rows = self._words.execute(
            "SELECT key FROM words WHERE words MATCH ? AND key NOT LIKE 'card|%' "
            "ORDER BY length(text) LIMIT 5",
            ('"' + own.replace('"', "") + '"',),
        )
        return list(dict.fromkeys([*exact, *(row[0] for row in rows)]))

    def relations(self, name: str, modality: str | None = None) -> list[Fact]:
        """The typed relations of a finding, region or measurement, by its name; score 1.

        "Appears as" is left out: the signs themselves say it.
        """
        edges = run(self._edges(name))
        return [
            fact
            for fact_id in sorted(edges)
            if "sign" not in self._facts.get(fact_id, {})
            and (fact := self._fact(fact_id, modality, 1.0))
        ]

    def relations_of(self, fact_id: str, modality: str | None = None) -> list[Fact]:
        """The relations of the term with this id, curated or imported; signs as what they are."""
        name = self._names.get(fact_id)
        if name is None:
            return self.imported.relations(fact_id) if self.imported else []
        edges = run(self._edges(name))
        signs = {self._facts[one]["sign"] for one in edges if "sign" in self._facts.get(one, {})}
        looks = [self._fact(sign, modality, 1.0) for sign in sorted(signs)]
        return [*self.relations(name, modality), *[look for look in looks if look]]

    async def _edges(self, name: str) -> dict[str, tuple[str, str]]:
        graph = self._rag.chunk_entity_relation_graph
        pairs = await graph.get_node_edges(name) or []
        return {edge["file_path"]: pair for pair in pairs if (edge := await graph.get_edge(*pair))}

    def query(
        self,
        text: str,
        modality: str | None = None,
        findings: Sequence[str] = (),
        top_k: int = 8,
    ) -> list[Fact]:
        """Facts that answer a text, best first.

        Args:
            text: Free words; under three characters nothing is found.
            modality: Keep only what holds in this modality.
            findings: Canonical finding names whose neighbourhood in the graph is looked at too.
            top_k: How many facts at most.

        Returns:
            Facts without repeats, none below the relevance floor, ordered by score, then id. The
            score, 0-1, fuses the similarity of the text and the fact, that of the fact's card,
            word matches and the graph (see `medgen.knowledge.fusion`).
        """
        words = text.strip()
        if len(words) < 3 or top_k < 1:
            return []
        weights = relevance()
        meant = in_field_words(words)
        question = self.embedder([meant])[0]
        evidence = run(self._evidence(meant, question, findings, weights))
        cards = {
            key: card
            for key, card in self._cards.items()
            if modality is None or key.startswith(f"{modality}: ")
        }
        sided = not SIDES.isdisjoint(words.lower().split())

        facts = {
            fact_id: entry
            for fact_id, entry in self._facts.items()
            if (modality is None or modality in entry["texts"] or "" in entry["texts"])
            and (sided or not entry.get("sided"))
        }
        scores = rank(evidence, cards, facts, denies(words, weights), weights)
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:top_k]
        found = [fact for one, score in best if (fact := self._fact(one, modality, score))]
        return self._with_imported(found, words, question, top_k, weights)

    async def _evidence(
        self, text: str, question: np.ndarray, findings: Sequence[str], weights: dict[str, Any]
    ) -> Evidence:
        """What LightRAG's vectors, the word index and LightRAG's graph bring up."""
        evidence = Evidence(words=self._by_words(text, int(weights["words"])))
        vector = question.tolist()
        names: dict[str, float] = {}
        for hit in await self._rag.entities_vdb.query(text, int(weights["entities"]), vector):
            evidence.facts[hit["file_path"]] = float(hit["distance"])
            names[hit["entity_name"]] = float(hit["distance"])
        for hit in await self._rag.relationships_vdb.query(text, int(weights["relations"]), vector):
            evidence.facts[hit["file_path"]] = float(hit["distance"])
        for hit in await self._rag.chunks_vdb.query(text, int(weights["cards"]), vector):
            evidence.cards[hit["file_path"].removeprefix(CARD)] = float(hit["distance"])
        near = sorted(names, key=lambda name: -names[name])[:EXPANDED]
        for name in dict.fromkeys([*findings, *near]):
            start = names.get(name, 1.0 if name in findings else 0.0)
            await self._expand(name, start * weights["graph_decay"], evidence)
        return evidence

    async def _expand(self, name: str, score: float, evidence: Evidence) -> None:
        """Score what a term is a kind of, and the findings that a sign belongs to."""
        for fact_id, (a, b) in (await self._edges(name)).items():
            if not fact_id.startswith(("MEDGEN:is-a:", "MEDGEN:appears-as:")):
                continue
            node = await self._rag.chunk_entity_relation_graph.get_node(b if a == name else a)
            if node and score > evidence.graph.get(node["file_path"], 0.0):
                evidence.graph[node["file_path"]] = score

    def _by_words(self, text: str, count: int) -> dict[str, float]:
        """Key to rank of the best full-text matches, 1 for the best."""
        wanted = search_words(text)
        if not wanted:
            return {}
        rows = self._words.execute(
            "SELECT key, bm25(words) FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (" OR ".join(f'"{word}"' for word in sorted(wanted)), count),
        ).fetchall()
        best = rows[0][1] if rows else 0.0  # bm25 is the more negative the better
        return {key: value / best for key, value in rows} if best < 0 else {}

    def _with_imported(
        self,
        facts: list[Fact],
        text: str,
        question: np.ndarray,
        top_k: int,
        weights: dict[str, Any],
    ) -> list[Fact]:
        """The best curated and imported facts together; what is curated keeps its words."""
        most = max(1, int(weights["imported_share"] * top_k))
        floor = weights["imported_floor"]
        others = []
        for source in (self.imported, self.literature):
            if source is not None:
                others += source.search(text, question, most, floor)
        known = {fact.id for fact in facts}
        others = [fact for fact in others if fact.id not in known and fact.id not in self._facts]
        others = sorted(others, key=lambda fact: (-fact.score, fact.id))[:most]
        return sorted([*facts, *others], key=lambda fact: (-fact.score, fact.id))[:top_k]

    def _fact(self, fact_id: str, modality: str | None, score: float) -> Fact | None:
        entry = self._facts.get(fact_id)
        if entry is None:
            return None
        texts = entry["texts"]
        if modality is None:
            text = _joined(texts)
        elif modality in texts or "" in texts:
            text = texts.get(modality) or texts[""]
        else:
            return None
        score = round(min(max(score, 0.0), 1.0), 4)
        return Fact(id=fact_id, kind=entry["kind"], text=text, score=score, source=entry["source"])


def _joined(texts: dict[str, str]) -> str:
    """A fact's texts of several modalities as one: what they share once, then each one's own."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    parts = {modality: text.split("; ") for modality, text in texts.items()}
    shared = [
        one for one in next(iter(parts.values())) if all(one in own for own in parts.values())
    ]
    said = list(shared)
    for modality, own in parts.items():
        rest = "; ".join(part for part in own if part not in shared)
        if rest:
            said.append(f"{modality}: {rest}" if modality else rest)
    return "; ".join(said)

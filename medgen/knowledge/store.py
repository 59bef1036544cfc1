"""The knowledge store: LightRAG over the curated base, with FAISS vectors and no language model.

Built on first use into a cache folder named by a fingerprint of base and embedder, whole or not at
all; afterwards opened for reading only. Knows retrieval; nothing of plans or prompts. LightRAG:
Guo et al., arXiv 2410.05779.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from medgen.errors import MedgenError
from medgen.knowledge.embedder import CachedEmbedder, Embedder, default_embedder
from medgen.knowledge.facts import FactBase, fact_base
from medgen.knowledge.lightrag_host import digest_id, make_lightrag, run
from medgen.records import Fact
from medgen.settings import settings

LAYOUT = 1
SIDES = {"left", "right", "bilateral", "both"}
Progress = Callable[[str], None]


def relevance() -> dict[str, float]:
    """Floors and candidate counts from `relevance.yaml`."""
    path = resources.files("medgen.knowledge") / "relevance.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def ready_vectors(embedder: Embedder) -> CachedEmbedder:
    """The embedder with the bundled vectors in front of it, where they are of the same model."""
    import numpy as np
    from safetensors import safe_open

    path = resources.files("medgen.knowledge") / "base" / "facts" / "vectors.safetensors"
    if path.is_file():
        with safe_open(str(path), framework="np") as stored:
            if (stored.metadata() or {}).get("embedder") == embedder.fingerprint:
                return CachedEmbedder(
                    embedder, stored.get_tensor("keys"), stored.get_tensor("vectors")
                )
    empty = np.zeros(0, dtype=np.int64), np.zeros((0, embedder.dimension), dtype=np.float16)
    return CachedEmbedder(embedder, *empty)


def custom_kg(base: FactBase) -> dict[str, list[dict[str, str]]]:
    """The fact base in the form that LightRAG's `insert_custom_kg` takes; ids in `file_path`."""
    chunks = [
        {"content": chunk.text, "source_id": chunk.id, "file_path": f"MEDGEN:card:{chunk.id}"}
        for chunk in base.chunks
    ]
    entities = [
        {
            "entity_name": entity.name,
            "entity_type": entity.kind,
            "description": entity.text,
            "source_id": "",
            "file_path": entity.id,
        }
        for entity in base.entities.values()
    ]
    relationships = [
        {
            "src_id": relation.a,
            "tgt_id": relation.b,
            "keywords": relation.kind.replace("_", " "),
            "description": "; ".join(
                dict.fromkeys(line for lines in relation.texts.values() for line in lines)
            ),
            "source_id": "",
            "file_path": relation.id,
        }
        for relation in base.relations.values()
    ]
    return {"chunks": chunks, "entities": entities, "relationships": relationships}


def catalogue(base: FactBase) -> dict[str, dict[str, Any]]:
    """What LightRAG does not keep, by fact id: kind, source, and text by modality."""
    entries: dict[str, dict[str, Any]] = {}
    for entity in base.entities.values():
        texts = dict.fromkeys(sorted(entity.modalities) or [""], entity.text)
        kind = "sign" if entity.kind == "sign" else "term"
        entries[entity.id] = {"kind": kind, "source": entity.source, "texts": texts}
        if entity.kind == "anatomy" and not SIDES.isdisjoint(entity.name.split()):
            entries[entity.id]["sided"] = True
    for relation in base.relations.values():
        texts = {modality: "; ".join(lines) for modality, lines in relation.texts.items()}
        entry: dict[str, Any] = {"kind": "relation", "source": relation.source, "texts": texts}
        if relation.kind == "appears_as":
            entry["sign"] = base.entities[relation.b].id
        elif relation.kind in ("part_of", "contained_in"):
            entry["part"] = base.entities[relation.a].id
        entries[relation.id] = entry
    return entries


def fingerprint(base: FactBase, embedder: Embedder | CachedEmbedder) -> str:
    """Digest of everything the store is made of: facts, embedder, LightRAG and layout version."""
    made_of = [
        LAYOUT, metadata.version("lightrag-hku"), embedder.fingerprint, custom_kg(base),
        catalogue(base),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


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


def build(target: Path, base: FactBase, embedder: CachedEmbedder, mark: str) -> None:
    """Build a store whole or not at all: in a folder beside `target`, renamed when finished."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        rag = run(make_lightrag(temporary, embedder))
        run(rag.ainsert_custom_kg(custom_kg(base)))
        run(rag.finalize_storages())
        (temporary / "facts.json").write_text(json.dumps(catalogue(base)), encoding="utf-8")
        (temporary / "fingerprint").write_text(mark, encoding="utf-8")
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


class KnowledgeStore:
    """A read-only knowledge store; make one with `KnowledgeStore.open()`."""

    def __init__(self, folder: Path, embedder: CachedEmbedder) -> None:
        self.folder = folder
        self.embedder = embedder
        self._facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        self._rag = run(make_lightrag(folder, embedder))

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        embedder: Embedder | None = None,
        progress: Progress | None = None,
    ) -> KnowledgeStore:
        """Open the store, building it first where it is missing or made of something else.

        Args:
            folder: Holds one sub-folder a fingerprint; `MEDGEN_KNOWLEDGE` or the user's cache
                folder when not given.
            embedder: Another sentence model than the bundled one.
            progress: Told one line before a build starts.

        Raises:
            MedgenError: The folder cannot be written or the embedder is not installed.
        """
        root = Path(folder).expanduser().resolve() if folder else default_folder()
        vectors = ready_vectors(embedder or default_embedder())
        base = fact_base()
        mark = fingerprint(base, vectors)
        target = root / mark
        if not _complete(target, mark):
            with _locked(root):
                if not _complete(target, mark):
                    if progress:
                        progress(f"building the knowledge store in {target}")
                    build(target, base, vectors, mark)
        return cls(target, vectors)

    def close(self) -> None:
        """Let LightRAG's storages go."""
        run(self._rag.finalize_storages())

    def fact(self, fact_id: str, modality: str | None = None) -> Fact | None:
        """The fact with this id as it holds in a modality, or None; its score is 1."""
        return self._fact(fact_id, modality, 1.0)

    def relations(self, name: str, modality: str | None = None) -> list[Fact]:
        """The typed relations of a finding, region or measurement, by its name; score 1.

        "Appears as" is left out: the signs themselves say it.
        """
        edges = run(self._edges(name))
        facts = [
            fact
            for fact_id in sorted(edges)
            if "sign" not in self._facts.get(fact_id, {})
            and (fact := self._fact(fact_id, modality, 1.0))
        ]
        return facts

    async def _edges(self, name: str) -> set[str]:
        graph = self._rag.chunk_entity_relation_graph
        pairs = await graph.get_node_edges(name) or []
        return {
            edge["file_path"]
            for source, target in pairs
            if (edge := await graph.get_edge(source, target))
        }

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
            Facts without repeats, none below the relevance floor, ordered by score, then id.
            The score is the cosine similarity of the text and the fact, 0-1.
        """
        words = text.strip()
        if len(words) < 3 or top_k < 1:
            return []
        limits = relevance()
        found = run(self._search(words, list(findings), int(limits["candidates"])))
        self._fold(found, sided=not SIDES.isdisjoint(words.lower().split()))
        facts = [
            fact
            for fact_id, score in found.items()
            if score >= limits["floor"] and (fact := self._fact(fact_id, modality, score))
        ]
        return sorted(facts, key=lambda fact: (-fact.score, fact.id))[:top_k]

    async def _search(self, text: str, findings: list[str], count: int) -> dict[str, float]:
        """Fact id to similarity, of everything LightRAG's hybrid search brings up."""
        from lightrag import QueryParam

        unlimited = 1_000_000
        answer = await self._rag.aquery_data(
            text,
            QueryParam(
                mode="hybrid",
                ll_keywords=[*findings, text],
                hl_keywords=[text],
                top_k=count,
                chunk_top_k=1,
                max_entity_tokens=unlimited,
                max_relation_tokens=unlimited,
                max_total_tokens=3 * unlimited,
                enable_rerank=False,
                only_need_context=True,
            ),
        )
        data = answer.get("data") or {}
        entities = {
            digest_id("ent-", entity["entity_name"]): entity["file_path"]
            for entity in data.get("entities", [])
        }
        relations = {
            digest_id("rel-", *sorted((edge["src_id"], edge["tgt_id"]))): edge["file_path"]
            for edge in data.get("relationships", [])
        }
        question = self.embedder([text])[0]
        scores: dict[str, float] = {}
        for storage, ids in (
            (self._rag.entities_vdb, entities),
            (self._rag.relationships_vdb, relations),
        ):
            vectors = await storage.get_vectors_by_ids(list(ids))
            for vector_id, vector in vectors.items():
                fact_id = ids[vector_id]
                score = round(float(question @ vector), 4)
                scores[fact_id] = max(score, scores.get(fact_id, 0.0))
        return scores

    def _fold(self, scores: dict[str, float], sided: bool) -> None:
        """Take out what would be said twice, so that the few best facts say different things.

        A sign names its findings already, so "x appears as y" joins it; where a location is found,
        "x is part of y" goes; left and right halves go when the text asks for no side.
        """
        for fact_id in list(scores):
            entry = self._facts.get(fact_id, {})
            if sign := entry.get("sign"):
                scores[sign] = max(scores.pop(fact_id), scores.get(sign, 0.0))
            elif entry.get("part") in scores:
                del scores[fact_id]
        if not sided:
            for fact_id in list(scores):
                if self._facts.get(fact_id, {}).get("sided"):
                    del scores[fact_id]

    def _fact(self, fact_id: str, modality: str | None, score: float) -> Fact | None:
        entry = self._facts.get(fact_id)
        if entry is None:
            return None
        texts = entry["texts"]
        if modality is None:
            text = "; ".join(dict.fromkeys(texts.values()))
        elif modality in texts or "" in texts:
            text = texts.get(modality) or texts[""]
        else:
            return None
        score = min(max(score, 0.0), 1.0)
        return Fact(id=fact_id, kind=entry["kind"], text=text, score=score, source=entry["source"])


def _complete(target: Path, mark: str) -> bool:
    try:
        return (target / "fingerprint").read_text(encoding="utf-8") == mark
    except OSError:
        return False

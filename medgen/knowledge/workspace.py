"""Builds the knowledge store's folder: a LightRAG workspace, a word index, a catalogue of facts.

Built whole or not at all, under a fingerprint of everything it is made of. Knows LightRAG's forms
and the fact base; nothing of asking. LightRAG: Guo et al., arXiv 2410.05779.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from medgen.knowledge.embedder import CachedEmbedder, Embedder
from medgen.knowledge.facts import Entity, FactBase, finding_id, sign_id
from medgen.knowledge.lightrag_host import digest_id, make_lightrag, run
from medgen.settings import settings

LAYOUT = 2
SIDES = {"left", "right", "bilateral", "both"}
FACTS_FILE, WORDS_FILE, MARK_FILE = "facts.json", "words.sqlite", "fingerprint"


def relevance() -> dict[str, Any]:
    """Floors, weights and candidate counts from `relevance.yaml`."""
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


def _base_files() -> Iterator[Path]:
    """Every file that the facts are made of, the user's cards too."""
    root = Path(str(resources.files("medgen.knowledge")))
    for path in sorted((root / "base").rglob("*")):
        cases = path.name in ("captions.csv", "cases.csv")
        if path.suffix in (".yaml", ".csv") and not cases and path.parent.name != "templates":
            yield path
    for name in ("cards", "facts", "fact_base", "width", "workspace"):
        yield root / f"{name}.py"
    extra = settings().modality_cards
    if extra is not None and extra.is_dir():
        yield from sorted(extra.glob("*.yaml"))


def fingerprint(embedder: Embedder | CachedEmbedder) -> str:
    """Digest of all that the store is made of: base files, embedder, LightRAG and layout version.

    The files are hashed rather than the facts: at 3,000 entities the facts take longer to make
    than the rest of the opening.
    """
    digest = hashlib.sha256()
    for path in _base_files():
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    made_with = [LAYOUT, metadata.version("lightrag-hku"), embedder.fingerprint]
    digest.update(json.dumps(made_with).encode())
    return digest.hexdigest()[:16]


def custom_kg(base: FactBase) -> dict[str, list[dict[str, str]]]:
    """What is searched, as LightRAG's `insert_custom_kg` takes it; ids in `file_path`."""
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
        if entity.curated
    ]
    relationships = [
        {
            "src_id": relation.a,
            "tgt_id": relation.b,
            "keywords": relation.kind.replace("_", " "),
            "description": _statement(relation.texts),
            "source_id": "",
            "file_path": relation.id,
        }
        for relation in base.relations.values()
        if relation.searched
    ]
    return {"chunks": chunks, "entities": entities, "relationships": relationships}


def _statement(texts: dict[str, list[str]]) -> str:
    return "; ".join(dict.fromkeys(line for lines in texts.values() for line in lines))


async def _insert_wide(rag: Any, base: FactBase) -> None:
    """Put the wide tables' entities and all unsearched relations in, in bulk.

    LightRAG's own way takes one graph call an entity and a vector a relation; hierarchy needs none.
    """
    wide = [entity for entity in base.entities.values() if not entity.curated]
    nodes = [
        (
            entity.name,
            {
                "entity_id": entity.name,
                "entity_type": entity.kind,
                "description": entity.text,
                "source_id": "",
                "file_path": entity.id,
            },
        )
        for entity in wide
    ]
    await rag.chunk_entity_relation_graph.upsert_nodes_batch(nodes)
    edges = [
        (
            relation.a,
            relation.b,
            {
                "keywords": relation.kind.replace("_", " "),
                "description": _statement(relation.texts),
                "source_id": "",
                "file_path": relation.id,
                "weight": 1.0,
            },
        )
        for relation in base.relations.values()
        if not relation.searched
    ]
    await rag.chunk_entity_relation_graph.upsert_edges_batch(edges)
    await rag.entities_vdb.upsert(
        {
            digest_id("ent-", entity.name): {
                "content": f"{entity.name}\n{entity.text}",
                "entity_name": entity.name,
                "entity_type": entity.kind,
                "source_id": "",
                "description": entity.text,
                "file_path": entity.id,
            }
            for entity in wide
        }
    )
    # LightRAG saves a graph only when it is told to.
    await rag.chunk_entity_relation_graph.index_done_callback()
    await rag.entities_vdb.index_done_callback()


def _shown(base: FactBase, entity: Entity, modality: str) -> str:
    look = base.looks.get((entity.id, modality))
    return f"{entity.text}{entity.detail}{f'; {look}' if look else ''}"


def catalogue(base: FactBase) -> dict[str, dict[str, Any]]:
    """What LightRAG does not keep, by fact id: kind, source, and text by modality."""
    entries: dict[str, dict[str, Any]] = {}
    for entity in base.entities.values():
        modalities = sorted(entity.modalities) or [""]
        texts = {modality: _shown(base, entity, modality) for modality in modalities}
        kind = "sign" if entity.kind == "sign" else "term"
        entries[entity.id] = {"kind": kind, "source": entity.source, "texts": texts}
        if entity.kind == "anatomy" and not SIDES.isdisjoint(entity.name.split()):
            entries[entity.id]["sided"] = True
        if not entity.curated:
            entries[entity.id]["wide"] = True
    for relation in base.relations.values():
        texts = {modality: "; ".join(lines) for modality, lines in relation.texts.items()}
        entry: dict[str, Any] = {"kind": "relation", "source": relation.source, "texts": texts}
        if relation.kind == "appears_as":
            entry["sign"] = base.entities[relation.b].id
        entries[relation.id] = entry
    return entries


def cards_table() -> dict[str, dict[str, Any]]:
    """Of every card, by "modality: name": fact id, kind and the ids of its signs."""
    from medgen.knowledge.cards import finding_cards, modality_cards

    return {
        f"{card.modality}: {card.name}": {
            "finding": finding_id(card),
            "normal": card.kind == "normal",
            "signs": [sign_id(card.modality, sign) for sign in card.signs],
        }
        for cards in finding_cards().values()
        for card in cards.values()
        if card.modality in modality_cards()
    }


def _write_words(path: Path, base: FactBase) -> None:
    """A full-text index of cards and facts, by key and by fact id."""
    database = sqlite3.connect(path)
    with database:
        database.execute(
            "CREATE VIRTUAL TABLE words "
            "USING fts5(key UNINDEXED, text, tokenize='porter unicode61')"
        )
        rows = [(f"card|{chunk.id}", chunk.text) for chunk in base.chunks]
        rows += [(entity.id, entity.text) for entity in base.entities.values()]
        database.executemany("INSERT INTO words VALUES(?, ?)", rows)
        database.execute("INSERT INTO words(words) VALUES('optimize')")
    database.close()


def build(target: Path, base: FactBase, embedder: CachedEmbedder, mark: str) -> None:
    """Build a store whole or not at all: in a folder beside `target`, renamed when finished."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        rag = run(make_lightrag(temporary, embedder))
        run(rag.ainsert_custom_kg(custom_kg(base)))
        run(_insert_wide(rag, base))
        run(rag.finalize_storages())
        names = {entity.id: entity.name for entity in base.entities.values()}
        facts = {"facts": catalogue(base), "cards": cards_table(), "names": names}
        (temporary / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
        _write_words(temporary / WORDS_FILE, base)
        (temporary / MARK_FILE).write_text(mark, encoding="utf-8")
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def complete(target: Path, mark: str) -> bool:
    """Whether a folder holds a finished store of this fingerprint."""
    try:
        return (target / MARK_FILE).read_text(encoding="utf-8") == mark
    except OSError:
        return False

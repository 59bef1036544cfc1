"""Hosts LightRAG: one event loop in a thread, a tokenizer of its own, silence, and no model.

LightRAG is asynchronous, talks to the console, reads `.env` files and downloads a tokenizer unless
it is stopped; all of that is kept in here. Knows nothing of facts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medgen.errors import MedgenError
from medgen.knowledge.embedder import CachedEmbedder

T = TypeVar("T")
MAX_TEXT_TOKENS = 256
EMBEDDING_BATCH = 64
SIMILARITY_THRESHOLD = 0.0  # the store applies its own floor, by fact and not by query

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on this process's LightRAG loop and wait for it; callable from anywhere."""
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="lightrag", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, loop).result()


def digest_id(prefix: str, *names: str) -> str:
    """LightRAG's vector id of an entity (its name) or a relation (both names, sorted)."""
    return prefix + hashlib.md5("".join(names).encode(), usedforsecurity=False).hexdigest()


class _Words:
    """A tokenizer that counts words: LightRAG needs one for its budgets, never for the vectors."""

    def __deepcopy__(self, memo: object) -> _Words:
        return self

    def encode(self, content: str) -> list[int]:
        """One number a word."""
        return list(range(len(content.split())))

    def decode(self, tokens: list[int]) -> str:
        """Not possible, and never asked for: no text here exceeds a budget."""
        raise NotImplementedError("word counts cannot be turned back into text")


async def _no_model(*_args: object, **_kwargs: object) -> str:
    raise MedgenError("the knowledge store has no language model: this is a defect of medgen")


def _import_lightrag() -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    before = os.environ.get("PYTHON_DOTENV_DISABLED")
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        logging.getLogger("lightrag").addHandler(logging.NullHandler())
        import lightrag
        from lightrag import LightRAG
    finally:
        if before is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = before
    logging.getLogger("lightrag").setLevel(logging.CRITICAL)
    return lightrag, LightRAG


async def make_lightrag(folder: Path, embedder: CachedEmbedder) -> Any:
    """A LightRAG over `folder` with its storages open: FAISS, NetworkX, JSON; no model, no log."""
    _, LightRAG = _import_lightrag()
    from lightrag.utils import EmbeddingFunc, Tokenizer

    async def embed(texts: list[str], **_kwargs: object) -> np.ndarray:
        return embedder(texts)

    rag = LightRAG(
        working_dir=str(folder),
        workspace="",
        kv_storage="JsonKVStorage",
        vector_storage="FaissVectorDBStorage",
        graph_storage="NetworkXStorage",
        doc_status_storage="JsonDocStatusStorage",
        vector_db_storage_cls_kwargs={"cosine_better_than_threshold": SIMILARITY_THRESHOLD},
        tokenizer=Tokenizer("words", _Words()),
        embedding_func=EmbeddingFunc(
            embedding_dim=embedder.dimension, max_token_size=MAX_TEXT_TOKENS, func=embed
        ),
        embedding_batch_num=EMBEDDING_BATCH,
        llm_model_func=_no_model,
        enable_llm_cache=False,
        enable_llm_cache_for_entity_extract=False,
    )
    await rag.initialize_storages()
    return rag

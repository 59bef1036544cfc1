"""Hosts LightRAG: one event loop in a thread, a tokenizer of its own, silence, and no model.

LightRAG is asynchronous, talks to the console, reads `.env` files and downloads a tokenizer unless
it is stopped; all of that is kept in here. Knows nothing of facts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine
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
    """A tokenizer of words and the space after them: counts for budgets, pieces for literature."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []

    def __deepcopy__(self, memo: object) -> _Words:
        return self

    def encode(self, content: str) -> list[int]:
        """A number a word; `decode` gives the same text back."""
        numbers = []
        for word in re.findall(r"\s*\S+|\s+$", content):
            if word not in self._numbers:
                self._numbers[word] = len(self._words)
                self._words.append(word)
            numbers.append(self._numbers[word])
        return numbers

    def decode(self, tokens: list[int]) -> str:
        """The text of numbers that `encode` gave."""
        return "".join(self._words[token] for token in tokens)


async def _no_model() -> str:
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


async def make_lightrag(
    folder: Path,
    embedder: CachedEmbedder,
    model: Callable[[str, str | None], Awaitable[str]] | None = None,
    workspace: str = "",
) -> Any:
    """A LightRAG over `folder` with its storages open: FAISS, NetworkX, JSON; no log.

    Args:
        folder: Its working folder.
        embedder: Embeds what is put in and asked.
        model: What answers (prompt, system prompt or None) when text is read in; without it
            nothing may ask one.
        workspace: A name of its own for every folder that is written to in this process: LightRAG
            keeps key-value data by name, whatever the folder.
    """
    _, LightRAG = _import_lightrag()
    from lightrag.utils import EmbeddingFunc, Tokenizer

    async def embed(texts: list[str], **_kwargs: object) -> np.ndarray:
        return embedder(texts)

    async def ask(prompt: str, system_prompt: str | None = None, **_kwargs: object) -> str:
        if model is None:
            return await _no_model()
        return await model(prompt, system_prompt)

    rag = LightRAG(
        working_dir=str(folder),
        workspace=workspace,
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
        llm_model_func=ask,
        enable_llm_cache=False,
        enable_llm_cache_for_entity_extract=False,
    )
    await rag.initialize_storages()
    return rag

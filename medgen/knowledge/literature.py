"""Literature: text and PDF files read into a LightRAG workspace by the user's language model.

LightRAG's own way: files are cut into pieces, a model extracts entities and relations, vectors make
them findable. Done files are known by their content and skipped; a killed import goes on with the
files that were not finished. The model is given as a function: this storey knows none.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgen.data.images import write_atomic
from medgen.errors import BadInput, MedgenError
from medgen.knowledge.embedder import CachedEmbedder
from medgen.knowledge.lightrag_host import make_lightrag, run
from medgen.records import Fact, Record

DONE = "files.json"
MARK = "workspace.json"
LanguageModel = Callable[[str, str | None], Awaitable[str]]
Progress = Callable[[str, int, int], None]


class LiteratureTaken(Record):
    """What an import of literature did; `failed` says of each file that was not read, why."""

    files: int
    new: int
    failed: dict[str, str]
    entities: int
    relations: int
    seconds: float


def text_of(path: Path) -> str:
    """The text of a .pdf file, or of any other file as UTF-8.

    Raises:
        BadInput: It cannot be read, holds no text, or pypdf is not installed.
    """
    if not path.is_file():
        raise BadInput(f"no file at {path}: give text or PDF files")
    if path.suffix.lower() != ".pdf":
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is no UTF-8 text ({error})") from error
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error})") from error
    else:
        try:
            import pypdf
        except ImportError as error:
            raise BadInput("reading PDF needs the package pypdf: pip install pypdf") from error
        try:
            pages = [page.extract_text() or "" for page in pypdf.PdfReader(path).pages]
        except Exception as error:  # pypdf raises a dozen kinds for one broken file
            raise BadInput(f"{path} cannot be read as PDF ({error})") from error
        text = "\n\n".join(pages)
    if not text.strip():
        raise BadInput(f"{path} holds no text (a scanned PDF needs OCR first)")
    return text


class Literature:
    """The literature of one folder.

    Args:
        folder: Holds the workspace and the list of files that are in it.
        embedder: Embeds pieces, entities and questions.
        model: What extracts entities: (prompt, system prompt or None) -> answer; only for `take`.

    Raises:
        MedgenError: The folder was embedded with another model.

    With a model the folder is this object's alone until `close`; another such one waits.
    """

    def __init__(
        self, folder: Path, embedder: CachedEmbedder, model: LanguageModel | None = None
    ) -> None:
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        # LightRAG rewrites its files whole: a second writer would undo the first, so it waits.
        self._lock = FileLock(folder / ".lock")
        if model is not None:
            self._lock.acquire()
        try:
            self._rag: Any = self._open(folder, embedder, model)
        except BaseException:
            self._lock.release()
            raise
        self.folder, self.embedder = folder, embedder

    @staticmethod
    def _open(folder: Path, embedder: CachedEmbedder, model: LanguageModel | None) -> Any:
        mark = folder / MARK
        if not mark.exists():
            made = {"embedder": embedder.fingerprint, "workspace": f"w{uuid.uuid4().hex[:12]}"}
            write_atomic(mark, json.dumps(made))
        made = json.loads(mark.read_text(encoding="utf-8"))
        if made["embedder"] != embedder.fingerprint:
            raise MedgenError(
                f"the literature in {folder} was embedded with another model: delete the folder "
                "and import again"
            )
        return run(make_lightrag(folder, embedder, model, made["workspace"]))

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether any literature was ever imported into a folder."""
        return (folder / DONE).is_file()

    def close(self) -> None:
        """Let LightRAG's storages go, and whoever waits to write."""
        try:
            run(self._rag.finalize_storages())
        finally:
            self._lock.release()

    def files(self) -> dict[str, str]:
        """Names of the files that are in, by digest of their text."""
        try:
            return json.loads((self.folder / DONE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def counts(self) -> dict[str, int]:
        """How many files, entities and relations there are."""
        graph = run(self._rag.chunk_entity_relation_graph.get_all_nodes())
        edges = run(self._rag.chunk_entity_relation_graph.get_all_edges())
        return {"files": len(self.files()), "entities": len(graph), "relations": len(edges)}

    def take(self, paths: Sequence[Path], progress: Progress | None = None) -> LiteratureTaken:
        """Read files, one after the other; those that are in already are skipped.

        Raises:
            BadInput: None of the files could be read.
        """
        started = time.monotonic()
        done, new, failed = self.files(), 0, {}
        for number, path in enumerate(paths, start=1):
            try:
                text = text_of(path)
                digest = hashlib.sha256(text.encode()).hexdigest()[:16]
                if digest not in done:
                    run(self._take_one(text, path, digest))
                    new += 1
                    done[digest] = path.name
                    write_atomic(self.folder / DONE, json.dumps(done))
            except MedgenError as error:
                failed[str(path)] = str(error)
            if progress:
                progress("reading literature", number, len(paths))
        if failed and len(failed) == len(paths):
            raise BadInput(next(iter(failed.values())))
        counts = self.counts()
        return LiteratureTaken(
            files=len(paths),
            new=new,
            failed=failed,
            entities=counts["entities"],
            relations=counts["relations"],
            seconds=round(time.monotonic() - started, 2),
        )

    async def _take_one(self, text: str, path: Path, digest: str) -> None:
        identity = f"doc-{digest}"
        before = await self._rag.doc_status.get_by_id(identity)
        if before is not None and str(before.get("status", "")).endswith("processed"):
            return
        await self._rag.ainsert(text, ids=[identity], file_paths=[path.name])
        status = await self._rag.doc_status.get_by_id(identity) or {}
        value = getattr(status.get("status"), "value", status.get("status"))
        if value != "processed":
            why = " ".join(
                str(status.get("error_msg") or "the model gave no usable answer").split()
            )
            raise MedgenError(
                f"{path} was not read ({why[:200]}): correct MEDGEN_LLM, import again"
            )

    def search(self, text: str, vector: np.ndarray, k: int, floor: float) -> list[Fact]:
        """Entities and relations of the literature nearest to a text, best first."""
        return run(self._search(text, vector.tolist(), k, floor))

    async def _search(self, text: str, vector: list[float], k: int, floor: float) -> list[Fact]:
        facts = []
        for storage, kind in (
            (self._rag.entities_vdb, "term"),
            (self._rag.relationships_vdb, "relation"),
        ):
            for hit in await storage.query(text, k, vector):
                if hit["distance"] < floor:
                    continue
                about = hit.get("entity_name") or f"{hit.get('src_id')} and {hit.get('tgt_id')}"
                said = str(hit.get("content", "")).partition("\n")[2] or about
                facts.append(
                    Fact(
                        id=f"LITERATURE:{hit['id']}",
                        kind="term" if kind == "term" else "relation",
                        text=" ".join(f"{about}: {said}".split()),
                        score=round(min(max(float(hit["distance"]), 0.0), 1.0), 4),
                        source=str(hit.get("file_path") or "literature"),
                    )
                )
        return sorted(facts, key=lambda fact: (-fact.score, fact.id))[:k]

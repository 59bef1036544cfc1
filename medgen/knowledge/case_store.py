"""Cases of any image-text table: searched by words and by image, filtered, for millions of rows.

Rows live in SQLite, vectors in files with FAISS indices (see `medgen.knowledge.nearest`): one text
vector a caption, however many rows share it, and one image vector a row. Building streams the
table and commits in batches, so a killed build goes on where it stopped. Knows tables and vectors;
what embeds an image is given to it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path

import numpy as np

from medgen.errors import MedgenError
from medgen.knowledge.case_table import case_id, findings_in, table_rows
from medgen.knowledge.embedder import CachedEmbedder
from medgen.knowledge.nearest import Nearest, VectorFile, build_index, index_state
from medgen.records import Record

DATABASE = "cases.sqlite"
ROWS_A_COMMIT = 2_000
CAPTIONS_A_COMMIT = 512
IMAGES_A_COMMIT = 256
EXACT_UP_TO = 50_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS captions(
    row INTEGER PRIMARY KEY, text TEXT NOT NULL, modality TEXT NOT NULL, findings TEXT NOT NULL,
    embedded INTEGER NOT NULL DEFAULT 0, UNIQUE(text, modality, findings));
CREATE TABLE IF NOT EXISTS cases(
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, path TEXT NOT NULL, caption INTEGER NOT NULL,
    source TEXT NOT NULL, image INTEGER NOT NULL DEFAULT 0, UNIQUE(path, caption));
CREATE INDEX IF NOT EXISTS cases_of_caption ON cases(caption);
CREATE TABLE IF NOT EXISTS findings(
    name TEXT NOT NULL, caption INTEGER NOT NULL, PRIMARY KEY(name, caption)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS made(name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
ImageEmbedder = Callable[[list[Path]], tuple[np.ndarray, list[bool]]]
Progress = Callable[[str, int, int], None]


class CasesTaken(Record):
    """What an import of a table did."""

    table: str
    rows: int
    new: int
    captions: int
    images: int
    unreadable_images: int
    seconds: float


class Case(Record):
    """A case that was found: how similar, what it says, where its image lies."""

    id: str
    path: str
    text: str
    modality: str
    findings: list[str]
    source: str
    score: float
    cases: int = 1


class CaseStore:
    """The cases of one folder; opened for reading, or for writing by an import.

    Args:
        folder: Holds the database, vectors and indices.
        embedder: Embeds captions and questions.
        write: Create the folder and its tables.

    Raises:
        MedgenError: The folder cannot be used, or its captions were embedded with another model.
    """

    def __init__(self, folder: Path, embedder: CachedEmbedder, write: bool = False) -> None:
        self.folder, self.embedder = folder, embedder
        path = folder / DATABASE
        try:
            if write:
                for name in ("text", "image"):
                    (folder / name).mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(path, check_same_thread=False)
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.executescript(_SCHEMA)
                self._remember("embedder", embedder.fingerprint)
            else:
                uri = f"{path.as_uri()}?mode=ro"
                self._base = sqlite3.connect(uri, uri=True, check_same_thread=False)
            made_with = self._recall("embedder")
        except (OSError, sqlite3.Error) as error:
            raise MedgenError(
                f"the cases in {folder} cannot be used ({error}): delete the folder and import "
                "the table again"
            ) from error
        if made_with != embedder.fingerprint:
            raise MedgenError(
                f"the cases in {folder} were embedded with another model: delete the folder and "
                "import the table again"
            )
        self._open_indices()

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a table was ever imported into a folder."""
        return (folder / DATABASE).is_file()

    def _open_indices(self) -> None:
        text, image = self.folder / "text", self.folder / "image"
        self._texts = Nearest(text) if index_state(text) else None
        self._images = Nearest(image) if index_state(image) else None
        rows = self._base.execute("SELECT modality FROM captions ORDER BY row").fetchall()
        self._modalities = sorted({row[0] for row in rows})
        number = {name: place for place, name in enumerate(self._modalities)}
        self._modality_of = np.array([number[row[0]] for row in rows], dtype=np.uint16)

    def _remember(self, name: str, value: str) -> None:
        with self._base:
            self._base.execute("INSERT OR IGNORE INTO made VALUES(?, ?)", (name, value))

    def _recall(self, name: str) -> str | None:
        row = self._base.execute("SELECT value FROM made WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Let the database go."""
        self._base.close()

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM cases").fetchone()[0])

    # -- importing

    def take(
        self,
        table: Path,
        images: ImageEmbedder | None = None,
        image_model: str | None = None,
        progress: Progress | None = None,
    ) -> CasesTaken:
        """Import a table: columns path, text, modal; label or findings, source as they are there.

        Args:
            table: A CSV file; relative image paths are relative to it. `findings` holds canonical
                names joined by "|"; without it they are looked for in the text.
            images: Turns image paths into unit vectors, and says which could be read; no image
                vectors without it.
            image_model: Fingerprint of what embeds images.
            progress: Told the step, what is done and how much there is (0: not known).

        Raises:
            BadInput: The table cannot be read or lacks a column.
        """
        from filelock import FileLock

        started = time.monotonic()
        with FileLock(self.folder / ".lock"):
            self._check_model(image_model)
            self._base.execute("CREATE TEMP TABLE IF NOT EXISTS taken(row INTEGER PRIMARY KEY)")
            self._base.execute("DELETE FROM taken")
            rows, new = self._read(table, progress)
            self._embed_captions(progress)
            seen, unreadable = self._embed_images(table.parent, images, progress)
            for name, dimension in (("text", self.embedder.dimension), ("image", 0)):
                self._index(self.folder / name, dimension, progress)
        self._open_indices()
        captions = int(self._base.execute("SELECT count(*) FROM captions").fetchone()[0])
        return CasesTaken(
            table=str(table.resolve()),
            rows=rows,
            new=new,
            captions=captions,
            images=seen,
            unreadable_images=unreadable,
            seconds=round(time.monotonic() - started, 2),
        )

    def _check_model(self, image_model: str | None) -> None:
        if image_model is None:
            return
        self._remember("image embedder", image_model)
        if self._recall("image embedder") != image_model:
            raise MedgenError(
                f"the images in {self.folder} were embedded with another model: delete the folder "
                "and import the table again"
            )

    def _read(self, table: Path, progress: Progress | None) -> tuple[int, int]:
        total = new = 0
        rows = table_rows(table)
        while batch := list(islice(rows, ROWS_A_COMMIT)):
            with self._base:
                for row in batch:
                    new += self._put(row)
            total += len(batch)
            if progress:
                progress("reading", total, 0)
        return total, new

    def _put(self, row: dict[str, str]) -> bool:
        modality, text = row["modal"].strip(), " ".join(row["text"].split())
        if row.get("findings") is not None:
            names = [name.strip() for name in row["findings"].split("|") if name.strip()]
        else:
            names = findings_in(text, modality)
        key = (text, modality, "|".join(names))
        self._base.execute(
            "INSERT OR IGNORE INTO captions(text, modality, findings) VALUES(?, ?, ?)", key
        )
        caption = self._base.execute(
            "SELECT row FROM captions WHERE text = ? AND modality = ? AND findings = ?", key
        ).fetchone()[0]
        self._base.executemany(
            "INSERT OR IGNORE INTO findings VALUES(?, ?)", [(name, caption) for name in names]
        )
        path = row["path"].strip()
        added = self._base.execute(
            "INSERT OR IGNORE INTO cases(id, path, caption, source) VALUES(?, ?, ?, ?)",
            (case_id(path), path, caption, (row.get("source") or "").strip()),
        )
        self._base.execute(
            "INSERT OR IGNORE INTO taken SELECT row FROM cases WHERE path = ? AND caption = ?",
            (path, caption),
        )
        return added.rowcount > 0

    def _embed_captions(self, progress: Progress | None) -> None:
        file = VectorFile(self.folder / "text", self.embedder.dimension)
        waiting = self._base.execute(
            "SELECT row, text FROM captions WHERE embedded = 0 ORDER BY length(text), row"
        ).fetchall()
        for start in range(0, len(waiting), CAPTIONS_A_COMMIT):
            batch = sorted(waiting[start : start + CAPTIONS_A_COMMIT])
            vectors = self.embedder.embedder([text for _, text in batch])
            file.write(np.array([row - 1 for row, _ in batch]), vectors)
            with self._base:
                self._base.executemany(
                    "UPDATE captions SET embedded = 1 WHERE row = ?", [(row,) for row, _ in batch]
                )
            if progress:
                done = min(start + CAPTIONS_A_COMMIT, len(waiting))
                progress("embedding captions", done, len(waiting))

    def _embed_images(
        self, folder: Path, images: ImageEmbedder | None, progress: Progress | None
    ) -> tuple[int, int]:
        """Image vectors of this table's cases that have none, those unreadable before tried again.

        Other tables' paths are relative to other folders. A case without a vector keeps zeros.
        """
        if images is None:
            return 0, 0
        waiting = self._base.execute(
            "SELECT row, path FROM cases WHERE image != 1 AND row IN taken ORDER BY row"
        ).fetchall()
        unreadable = 0
        for start in range(0, len(waiting), IMAGES_A_COMMIT):
            batch = waiting[start : start + IMAGES_A_COMMIT]
            vectors, read = images([folder / path for _, path in batch])
            unreadable += read.count(False)
            file = VectorFile(self.folder / "image", vectors.shape[1])
            file.write(np.array([row - 1 for row, _ in batch]), vectors)
            self._remember("image dimension", str(vectors.shape[1]))
            with self._base:
                self._base.executemany(
                    "UPDATE cases SET image = ? WHERE row = ?",
                    [(1 if ok else -1, row) for ok, (row, _) in zip(read, batch, strict=True)],
                )
            if progress:
                progress("embedding images", start + len(batch), len(waiting))
        return len(waiting) - unreadable, unreadable

    def _index(self, folder: Path, dimension: int, progress: Progress | None) -> None:
        dimension = dimension or int(self._recall("image dimension") or 0)
        if not dimension:
            return
        count = len(VectorFile(folder, dimension))
        if count and index_state(folder).get("count") != count:
            steps = (lambda done, of: progress("indexing", done, of)) if progress else None
            build_index(folder, dimension, EXACT_UP_TO, steps)

    # -- asking

    def search(
        self,
        text: str,
        modality: str | None = None,
        k: int = 3,
        findings: Collection[str] = (),
        floor: float = -1.0,
    ) -> list[Case]:
        """The captions nearest to a text, best first, one case each with how many share it."""
        if self._texts is None or not text.strip():
            return []
        allowed = self._allowed(modality, findings)
        rows, scores = self._texts.search(self.embedder([text.strip()])[0], k, allowed)
        found = []
        for row, score in zip(rows, scores, strict=True):
            if score >= floor:
                found.append(self._case("caption = ?", int(row) + 1, float(score)))
        return found

    def search_image(
        self,
        vector: np.ndarray,
        modality: str | None = None,
        k: int = 3,
        findings: Collection[str] = (),
    ) -> list[Case]:
        """The cases whose images are nearest to an image's unit vector, best first."""
        if self._images is None:
            return []
        captions = self._allowed(modality, findings)
        wanted = np.zeros(self._images.count, dtype=bool)
        for row, caption, state in self._base.execute("SELECT row, caption, image FROM cases"):
            if state == 1 and row <= len(wanted) and (captions is None or captions[caption - 1]):
                wanted[row - 1] = True
        rows, scores = self._images.search(vector.astype(np.float32), k, wanted)
        return [
            self._case("cases.row = ?", int(row) + 1, float(score))
            for row, score in zip(rows, scores, strict=True)
        ]

    def _allowed(self, modality: str | None, findings: Collection[str]) -> np.ndarray | None:
        """(captions,) bool of those that pass the filters; None when nothing is filtered."""
        if modality is None and not findings:
            return None
        allowed = np.ones(len(self._modality_of), dtype=bool)
        if modality is not None:
            if modality not in self._modalities:
                return np.zeros_like(allowed)
            allowed &= self._modality_of == self._modalities.index(modality)
        if findings:
            marks = ",".join("?" * len(findings))
            rows = self._base.execute(
                f"SELECT caption FROM findings WHERE name IN ({marks})", list(findings)
            )
            with_finding = np.zeros_like(allowed)
            with_finding[[row[0] - 1 for row in rows]] = True
            allowed &= with_finding
        return allowed

    def _case(self, condition: str, row: int, score: float) -> Case:
        base = (
            "SELECT id, path, text, modality, findings, source, caption FROM cases "
            "JOIN captions ON captions.row = cases.caption WHERE "
        )
        found = self._base.execute(f"{base}{condition} ORDER BY id LIMIT 1", (row,)).fetchone()
        count = self._base.execute(
            "SELECT count(*) FROM cases WHERE caption = ?", (found[6],)
        ).fetchone()[0]
        return Case(
            id=found[0],
            path=found[1],
            text=found[2],
            modality=found[3],
            findings=[name for name in found[4].split("|") if name],
            source=found[5],
            score=round(min(max(score, 0.0), 1.0), 4),
            cases=int(count),
        )

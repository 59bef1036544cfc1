"""The shelf of imported terms: a user's RadLex, SNOMED CT or OBO beside the curated base.

Terms, names and relations in SQLite (with a full-text index), vectors in a file with a FAISS index.
LightRAG is not used here: its graph and key-value files are read whole at every start, which at
50,000 terms costs seconds (docs/experiments/knowledge.md). An import commits in batches, so that a
killed one loses nothing and one done twice changes nothing. Knows terms; nothing of findings.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from medgen.errors import BadInput, MedgenError
from medgen.knowledge.embedder import CachedEmbedder
from medgen.knowledge.nearest import Nearest, VectorFile, build_index, index_state
from medgen.knowledge.terminologies import IS_A, READERS, Term
from medgen.knowledge.words import WORD, search_words
from medgen.records import Fact, Record

DATABASE = "terms.sqlite"
TERMS_A_COMMIT = 2_000
TEXTS_A_COMMIT = 512
EXACT_UP_TO = 200_000
WORDS_WEIGHT = 0.1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS terms(
    row INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL, synonyms TEXT NOT NULL,
    definition TEXT NOT NULL, codes TEXT NOT NULL, source TEXT NOT NULL,
    embedded INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS to_embed ON terms(embedded) WHERE embedded = 0;
CREATE TABLE IF NOT EXISTS relations(
    a TEXT NOT NULL, kind TEXT NOT NULL, b TEXT NOT NULL, PRIMARY KEY(a, kind, b)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS relations_back ON relations(b);
CREATE TABLE IF NOT EXISTS sources(
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, file TEXT NOT NULL, terms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS embedder(fingerprint TEXT PRIMARY KEY);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    names, definition, content='', tokenize='porter unicode61');
"""
Progress = Callable[[str, int, int], None]


class Imported(Record):
    """What an import did: terms read, terms that were new or changed, relations, seconds."""

    source: str
    file: str
    terms: int
    changed: int
    relations: int
    seconds: float
    already_there: bool = False


def file_digest(path: Path) -> str:
    """A digest of a file, or of a folder's text files with their names."""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class Shelf:
    """The imported terms of one folder; opened for reading, or for writing by an import.

    Args:
        folder: Holds database, vectors and index.
        embedder: Embeds questions and new terms.
        write: Create the folder and its tables.

    Raises:
        MedgenError: The folder cannot be read or written, or was embedded with another model.
    """

    def __init__(self, folder: Path, embedder: CachedEmbedder, write: bool = False) -> None:
        self.folder, self.embedder = folder, embedder
        path = folder / DATABASE
        try:
            if write:
                folder.mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(path, check_same_thread=False)
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._base.executescript(_SCHEMA)
                if not self._base.execute("SELECT 1 FROM embedder").fetchone():
                    with self._base:
                        mark = (embedder.fingerprint,)
                        self._base.execute("INSERT INTO embedder VALUES(?)", mark)
            else:
                uri = f"{path.as_uri()}?mode=ro"
                self._base = sqlite3.connect(uri, uri=True, check_same_thread=False)
            models = {row[0] for row in self._base.execute("SELECT fingerprint FROM embedder")}
        except (OSError, sqlite3.Error) as error:
            raise MedgenError(
                f"the imported terms in {folder} cannot be used ({error}): set MEDGEN_KNOWLEDGE to "
                "another folder, or delete this one and import again"
            ) from error
        if models - {embedder.fingerprint}:
            raise MedgenError(
                f"the terms in {folder} were embedded with another model: delete the folder and "
                "import again"
            )
        self.vectors = VectorFile(folder, embedder.dimension)
        self._nearest = Nearest(folder) if index_state(folder) else None

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether something was ever imported into a folder."""
        return (folder / DATABASE).is_file()

    def close(self) -> None:
        """Let the database go."""
        self._base.close()

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM terms").fetchone()[0])

    def counts(self) -> dict[str, int]:
        """Terms by source."""
        rows = self._base.execute("SELECT source, count(*) FROM terms GROUP BY source ORDER BY 1")
        return dict(rows.fetchall())

    def relations_count(self) -> int:
        """How many relations there are."""
        return int(self._base.execute("SELECT count(*) FROM relations").fetchone()[0])

    # -- importing

    def take(self, kind: str, path: Path, progress: Progress | None = None) -> Imported:
        """Import a terminology: read it, embed what is new, index everything.

        Args:
            kind: "radlex", "snomed" or "obo".
            path: The file, or the folder of an RF2 release.
            progress: Told the step, what is done and how much there is (0: not known).

        Raises:
            BadInput: The file cannot be read as what it should be; what was read before stays.
        """
        from filelock import FileLock

        with FileLock(self.folder / ".lock"):
            return self._take(kind, path, progress)

    def _take(self, kind: str, path: Path, progress: Progress | None) -> Imported:
        started = time.monotonic()
        reader = READERS[kind](path)
        first = next(reader, None)  # says what is wrong with the file before anything is written
        if first is None:
            raise BadInput(f"{path} holds no term")
        mark = file_digest(path)
        done = self._base.execute("SELECT terms FROM sources WHERE digest = ?", (mark,)).fetchone()
        total = int(done[0]) if done else 0
        changed = relations = 0
        if not done:
            # Once another edition is half read, the earlier one is no longer there as it was.
            with self._base:
                self._base.execute(
                    "DELETE FROM sources WHERE name = ? AND file = ?", (kind, path.name)
                )
            total, changed, relations = self._read(_chained(first, reader), kind, progress)
        waiting = self._embed(progress)
        if waiting or index_state(self.folder).get("count") != len(self.vectors):
            steps = (lambda n, of: progress("indexing", n, of)) if progress else None
            build_index(self.folder, self.embedder.dimension, EXACT_UP_TO, steps)
        with self._base:
            self._base.execute(
                "INSERT OR IGNORE INTO sources VALUES(?, ?, ?, ?)", (mark, kind, path.name, total)
            )
        self._nearest = Nearest(self.folder)
        return Imported(
            source=kind,
            file=str(path.resolve()),
            terms=total,
            changed=changed,
            relations=relations,
            seconds=round(time.monotonic() - started, 2),
            already_there=bool(done) and not waiting,
        )

    def _read(
        self, terms: Iterator[Term], source: str, progress: Progress | None
    ) -> tuple[int, int, int]:
        total = changed = relations = 0
        while batch := list(islice(terms, TERMS_A_COMMIT)):
            with self._base:
                for term in batch:
                    changed += self._put(term, source)
                pairs = [(term.id, kind, other) for term in batch for kind, other in term.relations]
                before = self._base.total_changes
                self._base.executemany("INSERT OR IGNORE INTO relations VALUES(?, ?, ?)", pairs)
                relations += self._base.total_changes - before
            total += len(batch)
            if progress:
                progress("reading", total, 0)
        return total, changed, relations

    def _put(self, term: Term, source: str) -> bool:
        """Add or renew a term; false when it is there just so."""
        values = (term.name, "|".join(term.synonyms), term.definition, "|".join(term.codes), source)
        known = self._base.execute(
            "SELECT row, name, synonyms, definition, codes, source FROM terms WHERE id = ?",
            (term.id,),
        ).fetchone()
        if known is not None and tuple(known[1:]) == values:
            return False
        if known is None:
            row = self._base.execute(
                "INSERT INTO terms(id, name, synonyms, definition, codes, source) "
                "VALUES(?, ?, ?, ?, ?, ?)",
                (term.id, *values),
            ).lastrowid
        else:
            row = known[0]
            old = (row, " ; ".join((known[1], *known[2].split("|"))), known[3])
            self._base.execute(
                "INSERT INTO words(words, rowid, names, definition) VALUES('delete', ?, ?, ?)", old
            )
            self._base.execute(
                "UPDATE terms SET name=?, synonyms=?, definition=?, codes=?, source=?, embedded=0 "
                "WHERE row = ?",
                (*values, row),
            )
        self._base.execute(
            "INSERT INTO words(rowid, names, definition) VALUES(?, ?, ?)",
            (row, " ; ".join((values[0], *values[1].split("|"))), term.definition),
        )
        return True

    def _embed(self, progress: Progress | None) -> int:
        """Embed every name that has no vector; short ones first, so that batches are alike.

        Synonyms are left to the word index: with them an import takes twice as long.
        """
        waiting = self._base.execute(
            "SELECT row, name FROM terms WHERE embedded = 0 ORDER BY length(name), row"
        ).fetchall()
        for start in range(0, len(waiting), TEXTS_A_COMMIT):
            batch = sorted(waiting[start : start + TEXTS_A_COMMIT])
            rows = np.array([row - 1 for row, _ in batch])
            self.vectors.write(rows, self.embedder.embedder([name for _, name in batch]))
            with self._base:
                self._base.executemany(
                    "UPDATE terms SET embedded = 1 WHERE row = ?", [(row,) for row, _ in batch]
                )
            if progress:
                progress("embedding", min(start + TEXTS_A_COMMIT, len(waiting)), len(waiting))
        return len(waiting)

    # -- asking

    def fact(self, term_id: str) -> Fact | None:
        """The term with this id, or None; its score is 1."""
        row = self._base.execute("SELECT row FROM terms WHERE id = ?", (term_id,)).fetchone()
        return self._facts({row[0] - 1: 1.0})[0] if row else None

    def relations(self, term_id: str, limit: int = 40) -> list[Fact]:
        """A term's typed relations in both directions, as facts of score 1."""
        rows = self._base.execute(
            "SELECT a, kind, b, x.name, y.name, x.source FROM relations r "
            "JOIN terms x ON x.id = r.a JOIN terms y ON y.id = r.b "
            "WHERE r.a = :id OR r.b = :id ORDER BY r.a = :id DESC, kind, a, b LIMIT :limit",
            {"id": term_id, "limit": limit},
        )
        return [
            Fact(
                id=f"{a}|{kind}|{b}",
                kind="relation",
                text=f"{x} {'is a' if kind == IS_A else kind.replace('_', ' ')} {y}",
                score=1.0,
                source=source,
            )
            for a, kind, b, x, y, source in rows
        ]

    def search(self, text: str, vector: np.ndarray, k: int, floor: float) -> list[Fact]:
        """Terms nearest to a text by meaning or by words, best first, none below the floor.

        Args:
            text: The question; its words are looked for in names and definitions.
            vector: Its unit vector.
            k: How many at most.
            floor: Least cosine similarity; a term with all the question's words in its names is
                kept whatever its vector says.
        """
        if self._nearest is None or k < 1:
            return []
        rows, cosines = self._nearest.search(vector, 2 * k)
        found = {int(row): float(score) for row, score in zip(rows, cosines, strict=True)}
        shares = self._by_words(text, 2 * k)
        missing = [row for row in shares if row not in found]
        if missing:
            data = np.asarray(self.vectors.read()[missing], dtype=np.float32)
            found |= dict(zip(missing, (data @ vector).tolist(), strict=True))
        fused = {
            row: min(max(score, floor) + WORDS_WEIGHT * shares.get(row, 0.0), 1.0)
            for row, score in found.items()
            if score >= floor or shares.get(row, 0.0) >= 1.0
        }
        return sorted(self._facts(fused), key=lambda fact: (-fact.score, fact.id))[:k]

    def _by_words(self, text: str, k: int) -> dict[int, float]:
        """Row to the share of the question's words that the term's names have, best k.

        Terms that a killed import left without a vector are not there yet.
        """
        words = search_words(text)
        if not words:
            return {}
        rows = self._base.execute(
            "SELECT w.rowid, name || ' ' || synonyms FROM words w JOIN terms t ON t.row = w.rowid "
            "WHERE words MATCH ? AND t.embedded = 1 ORDER BY bm25(words, 4.0, 1.0) LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), k),
        )
        return {
            row - 1: len(words & set(re.findall(WORD, names.lower()))) / len(words)
            for row, names in rows
        }

    def _facts(self, scores: dict[int, float]) -> list[Fact]:
        marks = ",".join("?" * len(scores))
        rows = self._base.execute(
            "SELECT row, id, name, synonyms, definition, codes, source FROM terms "
            f"WHERE row IN ({marks})",
            [row + 1 for row in scores],
        )
        return [
            Fact(
                id=row[1],
                kind="term",
                text=term_text(*row[2:6]),
                score=round(scores[row[0] - 1], 4),
                source=row[6],
            )
            for row in rows
        ]


def _chained(first: Term, rest: Iterator[Term]) -> Iterator[Term]:
    yield first
    yield from rest


def term_text(name: str, synonyms: str, definition: str, codes: str) -> str:
    """A term in words."""
    also = [text for text in synonyms.split("|") if text][:6]
    text = f"{name} (also {', '.join(also)})" if also else name
    text = f"{text}: {definition}" if definition else text
    known = [code for code in codes.split("|") if code][:4]
    return f"{text} [{', '.join(known)}]" if known else text

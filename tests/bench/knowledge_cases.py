"""Times the case index on a table of many rows: reading, indexing, opening, filtered questions.

    python tests/bench/knowledge_cases.py FOLDER [ROWS]

Captions are synthetic and all unlike. A stand-in embeds them (hashed words, projected at random,
seed 0), because what the sentence model costs a caption is known already; so the figures are the
index's own: streaming, k-means, memory, and how much of the exact answer the lists give.
"""

from __future__ import annotations

import csv
import json
import random
import resource
import statistics
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from medgen.knowledge import case_store
from medgen.knowledge.case_store import CaseStore
from medgen.knowledge.nearest import VectorFile

SITES = "left right upper lower middle apical basal hilar peripheral central".split()  # noqa: SIM905
FINDINGS = ["pleural effusion", "pneumothorax", "consolidation", "lung nodule", "cardiomegaly"]
GRADES = "mild moderate severe small large new old subtle dense streaky".split()  # noqa: SIM905


class HashedWords:
    """A stand-in for a sentence model: a fixed random vector a word, summed, of unit length."""

    dimension, fingerprint = 384, "hashed words"

    def __init__(self) -> None:
        self.embedder = self
        self._words: dict[str, np.ndarray] = {}

    def _word(self, word: str) -> np.ndarray:
        if word not in self._words:
            rng = np.random.default_rng(zlib.crc32(word.encode()))
            self._words[word] = rng.normal(size=self.dimension).astype(np.float32)
        return self._words[word]

    def __call__(self, texts: list[str]) -> np.ndarray:
        vectors = np.stack([sum(map(self._word, text.split())) for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def caption(number: int, chosen: random.Random) -> str:
    """A caption unlike all others."""
    words = [chosen.choice(GRADES), chosen.choice(FINDINGS), chosen.choice(SITES)]
    return f"{' '.join(words)} in patient {number % 997} of ward {number // 997}"


def say(step: str, begun: tuple[float, float], **figures: object) -> None:
    processor, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
    print(
        json.dumps(
            {"step": step, "processor": round(processor, 2), "wall": round(wall, 1)} | figures
        )
    )


def now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def main() -> None:
    folder, rows = Path(sys.argv[1]), int((sys.argv[2:3] or ["200000"])[0])
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.csv"
    chosen = random.Random(0)
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "text", "modal", "findings"])
        for number in range(rows):
            text = caption(number, chosen)
            finding = next(name for name in FINDINGS if name in text)
            writer.writerow([f"{number}.png", text, "Chest X-ray", finding])
    embedder = HashedWords()
    begun = now()
    store = CaseStore(folder / "cases", embedder, write=True)  # type: ignore[arg-type]
    taken = store.take(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say("import", begun, rows=taken.rows, captions=taken.captions, peak_mb=peak)
    store.close()
    begun = now()
    store = CaseStore(folder / "cases", embedder)  # type: ignore[arg-type]
    say("open", begun, lists=store._texts.lists)
    vectors = np.asarray(VectorFile(folder / "cases" / "text", 384).read(), dtype=np.float32)
    for name, findings in (("all", []), ("one finding", FINDINGS[:1])):
        seconds, kept = [], []
        for number in range(40):
            text = caption(number * 31, chosen)
            begun = now()
            found = store.search(text, "Chest X-ray", 10, findings)
            seconds.append(time.process_time() - begun[0])
            allowed = store._allowed("Chest X-ray", findings)
            scores = np.where(allowed, vectors @ embedder([text])[0], -1)
            exact = np.sort(scores)[-10:]
            kept.append(np.mean([case.score >= exact[0] - 1e-3 for case in found]))
        print(json.dumps({
            "step": f"query, {name}", "median_ms": round(1000 * statistics.median(seconds), 1),
            "worst_ms": round(1000 * max(seconds), 1),
            "recall_at_10": round(float(np.mean(kept)), 3),
        }))  # fmt: skip
    print(json.dumps({"exact up to": case_store.EXACT_UP_TO}))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main()

"""The case index: the training captions with their labels, searched by meaning.

What a caption says was really photographed once; a plan cites such cases as its precedent. Holds
captions, labels, sources and short case numbers, no images and no file names. FAISS flat index:
Johnson et al., arXiv 1702.08734.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources

import numpy as np
import yaml

from medgen.knowledge.embedder import CachedEmbedder, Embedder, default_embedder
from medgen.knowledge.store import ready_vectors, relevance
from medgen.records import Fact

CAPTION_COLUMNS = ("group", "caption", "modality", "source", "label", "findings", "license")
CASE_COLUMNS = ("id", "group")


@dataclass(frozen=True)
class CaseGroup:
    """Training images that share caption, label and source."""

    caption: str
    modality: str
    source: str
    label: str
    findings: tuple[str, ...]
    license: str
    ids: tuple[str, ...]


def case_id(path: str) -> str:
    """The number of a training image: a short hash of its path in the training table."""
    return hashlib.sha256(path.encode()).hexdigest()[:10]


def case_labels() -> dict[str, dict[str, list[str]]]:
    """Canonical finding names by modality and label."""
    path = resources.files("medgen.knowledge") / "base" / "case_labels.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _table(name: str) -> list[dict[str, str]]:
    path = resources.files("medgen.knowledge") / "base" / "facts" / name
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def bundled_cases() -> list[CaseGroup]:
    """The bundled case groups, in their table's order."""
    ids: dict[str, list[str]] = {}
    for row in _table("cases.csv"):
        ids.setdefault(row["group"], []).append(row["id"])
    return [
        CaseGroup(
            caption=row["caption"],
            modality=row["modality"],
            source=row["source"],
            label=row["label"],
            findings=tuple(name for name in row["findings"].split("|") if name),
            license=row["license"],
            ids=tuple(ids[row["group"]]),
        )
        for row in _table("captions.csv")
    ]


class CaseIndex:
    """Search over case groups; make one with `CaseIndex.load()`."""

    def __init__(self, groups: list[CaseGroup], embedder: CachedEmbedder) -> None:
        import faiss

        self.groups = groups
        self._embedder = embedder
        self._index = faiss.IndexFlatIP(embedder.dimension)
        self._index.add(embedder([group.caption for group in groups]))

    @classmethod
    def load(cls, embedder: Embedder | None = None) -> CaseIndex:
        """The bundled index; its vectors are ready-made for the bundled embedder."""
        return cls(bundled_cases(), ready_vectors(embedder or default_embedder()))

    def search(
        self,
        text: str,
        modality: str | None = None,
        k: int = 3,
        finding: str | Collection[str] | None = None,
    ) -> list[Fact]:
        """The cases whose captions are nearest to a text, best first.

        Args:
            text: Free words.
            modality: Only cases of this modality.
            k: How many at most; cases with one caption count once.
            finding: Only cases labelled with this canonical finding, or with one of these.

        Returns:
            Facts of kind "case", none below the case floor, ordered by score, then id. The id
            names one training image of that caption, the text says how many there are.
        """
        import faiss

        wanted = {finding} if isinstance(finding, str) else set(finding or ())
        rows = [
            row
            for row, group in enumerate(self.groups)
            if modality in (None, group.modality)
            and (not wanted or not wanted.isdisjoint(group.findings))
        ]
        if not rows or k < 1 or not text.strip():
            return []
        question = self._embedder([text.strip()])
        allowed = faiss.IDSelectorBatch(np.array(rows, dtype=np.int64))
        chosen = faiss.SearchParameters(sel=allowed)  # type: ignore[call-arg]
        scores, found = self._index.search(question, len(rows), params=chosen)
        facts: dict[str, Fact] = {}
        for score, row in zip(scores[0], found[0], strict=True):
            if row >= 0 and score >= relevance()["case_floor"]:
                fact = self._fact(self.groups[row], float(score))
                facts.setdefault(self.groups[row].caption, fact)
        return sorted(facts.values(), key=lambda fact: (-fact.score, fact.id))[:k]

    def _fact(self, group: CaseGroup, score: float) -> Fact:
        number = len(group.ids)
        images = f"{number} training image{'s' if number > 1 else ''}"
        return Fact(
            id=f"CASE:{min(group.ids)}",
            kind="case",
            text=f"{group.caption} ({images} labelled {group.label})",
            score=min(max(round(score, 4), 0.0), 1.0),
            source=f"{group.source}; {group.license}",
        )

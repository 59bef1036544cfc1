"""The case index: the training captions with their labels, and the user's own tables beside them.

What a caption says was really photographed once; a plan cites such cases as its precedent. The
bundled part holds captions, labels, sources and short case numbers, no images and no file names;
what a user imports is kept by `medgen.knowledge.case_store`.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import yaml

from medgen.knowledge.case_store import Case, CaseStore
from medgen.knowledge.embedder import CachedEmbedder, Embedder, default_embedder
from medgen.knowledge.store import default_folder
from medgen.knowledge.workspace import ready_vectors, relevance
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


def cases_folder(folder: Path | None = None) -> Path:
    """Where imported tables are kept: beside the knowledge store."""
    return (folder or default_folder()) / "cases"


def case_fact(case: Case) -> Fact:
    """An imported case as a fact."""
    more = f" (one of {case.cases} cases)" if case.cases > 1 else ""
    shown = f"; shows {', '.join(case.findings)}" if case.findings else ""
    return Fact(
        id=f"CASE:{case.id}",
        kind="case",
        text=f"{case.text}{more}{shown}",
        score=case.score,
        source=case.source or "imported table",
    )


class CaseIndex:
    """Search over case groups and imported tables; make one with `CaseIndex.load()`."""

    def __init__(
        self, groups: list[CaseGroup], embedder: CachedEmbedder, own: CaseStore | None = None
    ) -> None:
        import faiss

        self.groups = groups
        self.own = own
        self._embedder = embedder
        self._index = faiss.IndexFlatIP(embedder.dimension)
        self._index.add(embedder([group.caption for group in groups]))

    @classmethod
    def load(cls, embedder: Embedder | None = None, folder: Path | None = None) -> CaseIndex:
        """The bundled index, its vectors ready-made, and the tables imported into the store.

        Args:
            embedder: Another sentence model than the bundled one.
            folder: The knowledge store's folder; `MEDGEN_KNOWLEDGE` or the user's cache folder
                when not given.
        """
        vectors = ready_vectors(embedder or default_embedder())
        place = cases_folder(folder)
        own = CaseStore(place, vectors) if CaseStore.exists(place) else None
        return cls(bundled_cases(), vectors, own)

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
        wanted = {finding} if isinstance(finding, str) else set(finding or ())
        if k < 1 or not text.strip():
            return []
        floor = relevance()["case_floor"]
        facts = self._bundled(text, modality, wanted, floor)
        if self.own is not None:
            for case in self.own.search(text, modality, k, wanted, floor):
                facts.setdefault(case.text, case_fact(case))
        return sorted(facts.values(), key=lambda fact: (-fact.score, fact.id))[:k]

    def search_image(
        self,
        vector: np.ndarray,
        modality: str | None = None,
        k: int = 3,
        finding: str | Collection[str] | None = None,
    ) -> list[Fact]:
        """The imported cases whose images are nearest to an image's vector, best first.

        The bundled cases have no images. Filters are those of `search`.
        """
        wanted = {finding} if isinstance(finding, str) else set(finding or ())
        if self.own is None:
            return []
        return [case_fact(case) for case in self.own.search_image(vector, modality, k, wanted)]

    def _bundled(
        self, text: str, modality: str | None, wanted: set[str], floor: float
    ) -> dict[str, Fact]:
        import faiss

        rows = [
            row
            for row, group in enumerate(self.groups)
            if modality in (None, group.modality)
            and (not wanted or not wanted.isdisjoint(group.findings))
        ]
        if not rows:
            return {}
        question = self._embedder([text.strip()])
        allowed = faiss.IDSelectorBatch(np.array(rows, dtype=np.int64))
        chosen = faiss.SearchParameters(sel=allowed)  # type: ignore[call-arg]
        scores, found = self._index.search(question, len(rows), params=chosen)
        facts: dict[str, Fact] = {}
        for score, row in zip(scores[0], found[0], strict=True):
            if row >= 0 and score >= floor:
                fact = self._fact(self.groups[row], float(score))
                facts.setdefault(self.groups[row].caption, fact)
        return facts

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

"""Retrieval against no retrieval, and each part against the whole, on loosely worded findings.

    python tests/bench/knowledge_retrieval.py STORE_FOLDER [QUERIES.yaml]

A hit is a sign of the finding among the first five facts (and among the first five signs). Without
retrieval a finding is found by its name or a synonym standing in the words, as the parser does.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import yaml

from medgen.knowledge import store as store_module
from medgen.knowledge.cards import finding_cards
from medgen.knowledge.facts import sign_id
from medgen.knowledge.fusion import Evidence
from medgen.knowledge.store import KnowledgeStore

QUERIES = Path(__file__).parents[1] / "knowledge" / "loose_queries.yaml"
PARTS = {
    "whole": {},
    "no lay words": {},
    "no graph": {"graph": {}},
    "no words": {"words": {}},
    "no cards": {"cards": {}},
    "vectors of facts alone": {"graph": {}, "words": {}, "cards": {}},
    "words alone": {"graph": {}, "facts": {}, "cards": {}},
}


def signs_of(entry: dict[str, str]) -> set[str]:
    card = finding_cards()[entry["modality"]][entry["finding"]]
    return {sign_id(card.modality, sign) for sign in card.signs}


def by_name(entry: dict[str, str]) -> bool:
    """Whether a name of the finding stands in the words: what is found without retrieval."""
    card = finding_cards()[entry["modality"]][entry["finding"]]
    names = [card.name, *card.synonyms, *card.abbreviations]
    return any(re.search(rf"\b{re.escape(name)}\b", entry["query"], re.I) for name in names)


def main() -> None:
    entries = yaml.safe_load(Path((sys.argv[2:3] or [QUERIES])[0]).read_text(encoding="utf-8"))
    store = KnowledgeStore.open(sys.argv[1])
    named = sum(by_name(entry) for entry in entries)
    print(f"no retrieval: {named} of {len(entries)}")
    plain, lay = KnowledgeStore._evidence, store_module.in_field_words
    for part, without in PARTS.items():

        async def partial(self, *args, _without=without) -> Evidence:
            return replace(await plain(self, *args), **_without)

        KnowledgeStore._evidence = partial
        store_module.in_field_words = (lambda text: text) if part == "no lay words" else lay
        facts_hit = signs_hit = 0
        seconds, missed = [], []
        for entry in entries:
            begun = time.process_time()
            facts = store.query(entry["query"], entry["modality"], top_k=20)
            seconds.append(time.process_time() - begun)
            own = signs_of(entry)
            hit = bool(own & {fact.id for fact in facts[:5]})
            facts_hit += hit
            signs = [fact.id for fact in facts if fact.kind == "sign"]
            signs_hit += bool(own & set(signs[:5]))
            if not hit:
                missed.append((entry["modality"], entry["finding"], entry["query"]))
        median = round(1000 * statistics.median(seconds), 1)
        print(f"{part}: facts {facts_hit}, signs {signs_hit} of {len(entries)}; {median} ms")
        if part == "whole":
            print(*missed, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main()

"""Makes the bundled case tables and ready-made vectors; run when cards or training table change.

    python -m medgen.knowledge.prepare [MANIFEST]

With MANIFEST (the training table, columns path, text, modal, label, split, source, license) the
tables `captions.csv` and `cases.csv` are made again from its `split=train` rows. Then everything
that the store and the case index embed is embedded once and kept in half precision.
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.knowledge.case_table import case_id
from medgen.knowledge.cases import CAPTION_COLUMNS, CASE_COLUMNS, bundled_cases, case_labels
from medgen.knowledge.embedder import CachedEmbedder, default_embedder, text_key
from medgen.knowledge.fact_base import fact_base
from medgen.knowledge.workspace import build, ready_vectors

FACTS = Path(__file__).parent / "base" / "facts"


def _write_table(name: str, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(FACTS / name, buffer.getvalue())
    print(f"{name}: {len(rows)} rows")


def write_cases(manifest: Path) -> None:
    """Write the case tables from a training table's `split=train` rows.

    Raises:
        BadInput: The table is missing, or has a label that `case_labels.yaml` does not know.
    """
    if not manifest.is_file():
        raise BadInput(f"no training table at {manifest}: give the path of manifest.csv")
    known = case_labels()
    groups: dict[tuple[str, ...], list[str]] = {}
    with manifest.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["split"] != "train":
                continue
            if row["label"] not in known.get(row["modal"], {}):
                raise BadInput(
                    f"label {row['label']!r} of {row['modal']} in {manifest} is not in "
                    "case_labels.yaml: add it there"
                )
            key = tuple(row[name] for name in ("text", "modal", "source", "label", "license"))
            groups.setdefault(key, []).append(case_id(row["path"]))
    captions: list[dict[str, object]] = []
    cases: list[dict[str, object]] = []
    for number, (key, ids) in enumerate(sorted(groups.items())):
        caption, modality, source, label, terms = key
        findings = "|".join(known[modality][label])
        values = (number, caption, modality, source, label, findings, terms)
        captions.append(dict(zip(CAPTION_COLUMNS, values, strict=True)))
        cases += [dict(zip(CASE_COLUMNS, (name, number), strict=True)) for name in sorted(ids)]
    _write_table("captions.csv", CAPTION_COLUMNS, captions)
    _write_table("cases.csv", CASE_COLUMNS, cases)


class _Recorder(CachedEmbedder):
    """The bundled embedder, remembering what it was asked; no ready-made vector is made again."""

    def __init__(self) -> None:
        ready = ready_vectors(default_embedder())
        self.__dict__.update(ready.__dict__)
        self.asked: dict[str, None] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked |= dict.fromkeys(texts)
        return super().__call__(texts)


def write_vectors() -> None:
    """Embed what a store build and the case index ask for, and keep it in half precision."""
    from safetensors.numpy import save

    recorder = _Recorder()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "store", fact_base(), recorder, "")
    recorder([group.caption for group in bundled_cases()])
    texts = sorted(recorder.asked)
    tensors: dict[str, Any] = {
        "keys": np.array([text_key(text) for text in texts], dtype=np.int64),
        "vectors": recorder(texts).astype(np.float16),
    }
    stored = save(tensors, metadata={"embedder": recorder.fingerprint})
    write_atomic(FACTS / "vectors.safetensors", stored)
    print(f"vectors.safetensors: {len(texts)} vectors, {len(stored) / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit(__doc__)
    if len(sys.argv) == 2:
        write_cases(Path(sys.argv[1]))
    write_vectors()

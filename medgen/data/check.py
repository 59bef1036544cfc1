"""Is a table fit to train on? Broken images, duplicates, label counts, leakage between splits.

One pass over the rows, images decoded by several workers; what is kept of an image is its size
and two hashes. Knows tables and pixels; judges no content.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import faiss
import numpy as np
from PIL import Image
from pydantic import Field

from medgen.data.formats import Reading, read_rows
from medgen.data.images import load_image
from medgen.errors import BadInput
from medgen.records import Record

LISTED = 100
CHUNK = 256
# Bits of 128 in which two hashes of one picture may differ.
ALIKE = 4
LOOK_ALIKE = "look-alike image"
ALIKE_TEXT = "look alike, compare them by eye"
Progress = Callable[[int], None]
Seen = tuple[str, str, np.ndarray]


class Problem(Record):
    """One thing that is wrong: the rows that it concerns (the header is row 1), and what it is."""

    kind: str
    rows: list[int]
    text: str


class TableReport(Record):
    """What `medgen data check --json` prints.

    `counts` says how many rows have each kind of problem; `problems` lists the first hundred of a
    kind. `labels` counts rows by modality, label and split; `sizes` by width x height.
    """

    table: str
    form: str
    rows: int
    labels: dict[str, dict[str, dict[str, int]]] = Field(default_factory=dict)
    sizes: dict[str, int] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    problems: list[Problem] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


def likeness(image: Image.Image) -> np.ndarray:
    """A 128-bit difference hash: which of two neighbours is brighter on a 16 x 8 grid.

    Few bits differ between copies that were resized, re-compressed or re-lit. Source: the dHash
    of Krawetz, "Kind of Like That" (2013), at twice its usual size.

    Returns:
        (16,) uint8, the bits packed.
    """
    grey = image.convert("L").resize((17, 8), Image.Resampling.BOX)
    cells = np.asarray(grey, dtype=np.int16)
    return np.packbits(cells[:, 1:] > cells[:, :-1])


def look_alikes(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, second) of (n, 16) hashes that differ in at most `ALIKE` of 128 bits.

    Of eight bands of 16 bits at least one is equal then, so that only hashes that share a band
    are compared.
    """
    index = faiss.IndexBinaryMultiHash(128, 8, 16)
    index.add(hashes)
    limits, _, found = index.range_search(hashes, ALIKE + 1)
    pairs = set()
    for one in range(len(hashes)):
        for other in found[limits[one] : limits[one + 1]]:
            if one < other:
                pairs.add((one, int(other)))
    return sorted(pairs)


class _Checker:
    """Collects what is seen row by row."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.listed: Counter[str] = Counter()
        self.labels: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self.sizes: Counter[str] = Counter()
        self.first: dict[tuple[str, str], tuple[int, str]] = {}
        self.split_of: dict[str, tuple[int, str]] = {}
        self.hashes: list[tuple[int, str, np.ndarray]] = []

    def problem(self, kind: str, rows: list[int], text: str) -> None:
        self.counts[kind] += 1
        if self.listed[kind] < LISTED:
            self.listed[kind] += 1
            self.problems.append(Problem(kind=kind, rows=rows, text=text))

    def row(self, number: int, row: dict[str, str], seen: Seen | str) -> None:
        split = row.get("split", "")
        self.labels[row["modal"]][row.get("label", "")][split] += 1
        if not row["text"]:
            self.problem("empty text", [number], f"row {number} has no text")
        if not row["modal"]:
            self.problem("empty modality", [number], f"row {number} has no modality")
        self._once("path", row["path"], number, split, f"{row['path']} is listed twice")
        group = row.get("group") or row.get("patient_id") or ""
        if group:
            self._leak(group, number, split)
        if isinstance(seen, str):
            self.problem("broken image", [number], f"row {number}: {seen}")
            return
        size, exact, alike = seen
        self.sizes[size] += 1
        if self._once("image", exact, number, split, "the same pixels"):
            self.hashes.append((number, split, alike))

    def finish(self) -> None:
        """Compare all pictures with one another; exact copies were told already."""
        if not self.hashes:
            return
        for one, other in look_alikes(np.stack([alike for _, _, alike in self.hashes])):
            (first, its_split, _), (second, split, _) = self.hashes[one], self.hashes[other]
            self._pair(LOOK_ALIKE, first, second, its_split, split, ALIKE_TEXT)

    def _once(self, what: str, key: str, number: int, split: str, text: str) -> bool:
        """Note the first row of a key; report every other one. True for a first row."""
        before, its_split = self.first.setdefault((what, key), (number, split))
        if before == number:
            return True
        self._pair(f"duplicate {what}", before, number, its_split, split, text)
        return False

    def _pair(
        self, kind: str, before: int, number: int, its_split: str, split: str, text: str
    ) -> None:
        self.problem(kind, [before, number], f"rows {before} and {number}: {text}")
        if its_split != split:
            # Two eyes may look alike; the same pixels or the same file are never chance.
            self.problem(
                "possible leakage" if kind == LOOK_ALIKE else "leakage",
                [before, number],
                f"rows {before} ({its_split}) and {number} ({split}): {text}, in two splits",
            )

    def _leak(self, group: str, number: int, split: str) -> None:
        before, its_split = self.split_of.setdefault(group, (number, split))
        if its_split != split:
            self.problem(
                "leakage",
                [before, number],
                f"rows {before} ({its_split}) and {number} ({split}): group {group} in two splits",
            )


def _seen(path: str) -> Seen | str:
    """Size and hashes of an image, or why it cannot be read."""
    try:
        image = load_image(Path(path))
    except BadInput as error:
        return str(error)
    return (
        f"{image.width}x{image.height}",
        hashlib.sha256(image.tobytes()).hexdigest()[:32],
        likeness(image),
    )


def check_table(
    path: str | Path, workers: int = 2, progress: Progress = lambda _rows: None
) -> TableReport:
    """Look at every row and every image of a table.

    Args:
        path: A table in any form of `medgen.data.formats`; `split`, `group` and `label` are used
            where there are such columns.
        workers: Threads that decode images.
        progress: Told how many rows were looked at.

    Raises:
        BadInput: The table itself cannot be read.
    """
    reading, checker, done = Reading(), _Checker(), 0
    rows = ((reading.row, row) for row in read_rows(path, reading))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        while chunk := list(islice(rows, CHUNK)):
            images = pool.map(_seen, [row["path"] for _, row in chunk])
            for (number, row), seen in zip(chunk, images, strict=True):
                checker.row(number, row, seen)
            done += len(chunk)
            progress(done)
    checker.finish()
    if not done:
        raise BadInput(f"{path} has no rows: a table needs at least one image")
    return TableReport(
        table=str(path),
        form=reading.form,
        rows=done,
        labels={
            modal: {label: dict(sorted(splits.items())) for label, splits in sorted(by.items())}
            for modal, by in sorted(checker.labels.items())
        },
        sizes=dict(checker.sizes.most_common(20)),
        counts=dict(sorted(checker.counts.items())),
        problems=checker.problems,
        notes=reading.notes,
    )

"""Is a dataset's folder what its manifest says? Every file, both manifests, splits, copies.

One pass over the rows, images decoded by several workers; what is kept of an image is its path and
two hashes. Judges no content; `medgen.graphs.remeasure` asks the verifier again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from medgen.data.check import ALIKE_TEXT, CHUNK, LISTED, likeness, look_alikes
from medgen.data.dataset_folder import SPLITS, Dataset, open_dataset
from medgen.data.dataset_layout import settled_name
from medgen.data.dataset_rows import PARQUET, TABLE, Row, read_manifest
from medgen.data.dataset_stats import silent
from medgen.data.exports.items import Progress
from medgen.data.images import MAX_PIXELS
from medgen.errors import BadInput
from medgen.records import Record

IMAGE_FOLDERS = ("images", "rejected")
UNFINISHED = ".work"
NEAR = "look-alike images"


class Fault(Record):
    """One thing that is wrong, and the file or id that it is about."""

    kind: str
    about: str
    text: str


class DatasetReport(Record):
    """What `medgen dataset verify --json` prints.

    `counts` has how many faults of each kind there are, `faults` the first hundred of each.
    `alike` are pairs of accepted images that look alike: copies as a rule, chance now and then, so
    they are told and are no faults. `changed` are verdicts that came out otherwise when measured
    again; null when nothing was measured.
    """

    dataset: str
    rows: int = 0
    images: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    faults: list[Fault] = Field(default_factory=list)
    alike: list[Fault] = Field(default_factory=list)
    measured: int | None = None
    changed: list[Fault] | None = None
    notes: list[str] = Field(default_factory=list)

    def fault(self, kind: str, about: str, text: str) -> None:
        """Take note of something that is wrong."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if self.counts[kind] <= LISTED:
            self.faults.append(Fault(kind=kind, about=about, text=text))


@dataclass(frozen=True)
class Seen:
    """What was found in a file: faults (kind and words), and the pixels' two hashes."""

    faults: tuple[tuple[str, str], ...] = ()
    pixels: str = ""
    alike: np.ndarray | None = None


def check_dataset(
    folder: str | Path, workers: int = 2, progress: Progress = silent
) -> DatasetReport:
    """Check a dataset's folder; writes nothing.

    Args:
        folder: A dataset's.
        workers: Threads that read images.
        progress: Told how many images were looked at.

    Raises:
        BadInput: The folder holds no manifest, or one that cannot be read at all.
    """
    dataset = open_dataset(folder)
    report = DatasetReport(dataset=str(dataset.folder))
    _compare_manifests(dataset.folder, report)
    checker = _Checker(dataset, report)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        rows = dataset.rows()
        while chunk := list(islice(rows, CHUNK)):
            seen = pool.map(look_at, [dataset.folder] * len(chunk), chunk)
            for row, found in zip(chunk, seen, strict=True):
                checker.row(row, found)
            progress("images", report.rows, dataset.row_count)
    checker.finish()
    return report


def look_at(folder: Path, row: Row) -> Seen:
    """Read a row's file and compare it with what the row says of it."""
    path = (folder / row.path).resolve()
    if not path.is_relative_to(folder):
        return Seen((("path", f"{row.path} lies outside of the folder"),))
    try:
        data = path.read_bytes()
    except OSError as error:
        return Seen((("missing file", f"{row.path}: {error.strerror}"),))
    faults = []
    if hashlib.sha256(data).hexdigest() != row.sha256:
        faults.append(("hash", f"{row.path} has other bytes than when it was drawn"))
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels")
            image.load()
            faults += _marks(image, row)
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Seen((*faults, ("broken image", f"{row.path} cannot be read ({error})")))
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()[:32]
    return Seen(tuple(faults), pixels, likeness(picture))


def _marks(image: Image.Image, row: Row) -> list[tuple[str, str]]:
    faults = []
    if (image.width, image.height) != (row.width, row.height):
        size = f"{image.width}x{image.height}"
        faults.append(("size", f"{row.path} is {size}, the manifest says {row.width}x{row.height}"))
    if image.format != "PNG":
        faults.append(("format", f"{row.path} is {image.format}, not PNG"))
    elif getattr(image, "text", {}).get("Synthetic") != "YES":
        faults.append(("no synthetic mark", f"{row.path} does not say that it is synthetic"))
    return faults


class _Checker:
    """Collects row by row."""

    def __init__(self, dataset: Dataset, report: DatasetReport) -> None:
        self.dataset, self.report = dataset, report
        self.paths: set[str] = set()
        self.kept: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.pixels: dict[str, str] = {}
        self.names: list[tuple[str, str]] = []
        self.hashes: list[np.ndarray] = []
        self.split_of: dict[str, str] = {}

    def row(self, row: Row, seen: Seen) -> None:
        report = self.report
        report.rows += 1
        report.images += row.kept
        self.ids.add(row.id)
        for kind, text in seen.faults:
            report.fault(kind, row.id, text)
        if row.path in self.paths:
            report.fault("duplicate path", row.id, f"{row.path} is in two rows")
        self.paths.add(row.path)
        self._row_with_itself(row)
        self._split(row)
        if not row.kept:
            return
        self.kept[row.id] += 1
        if self.kept[row.id] == 2:
            report.fault("duplicate id", row.id, f"{row.id} has two accepted images")
        if seen.alike is None:
            return
        before = self.pixels.setdefault(seen.pixels, row.id)
        if before != row.id:
            report.fault("duplicate image", row.id, f"{row.id} has the pixels of {before}")
            return
        self.names.append((row.modality, row.id))
        self.hashes.append(seen.alike)

    def _row_with_itself(self, row: Row) -> None:
        place = settled_name(row.id, row.attempt, row.kept)
        if row.path != place:
            self.report.fault("path", row.id, f"{row.path} should be {place}")
        if not row.synthetic:
            self.report.fault(
                "no synthetic mark", row.id, f"{row.id} is not marked in the manifest"
            )
        verdicts = {one.verdict for one in row.findings}
        if row.accepted and "contradicted" in verdicts:
            self.report.fault(
                "verdict", row.id, f"{row.id} is accepted though a finding is contradicted"
            )

    def _split(self, row: Row) -> None:
        if not self.dataset.splits:
            return
        split = self.dataset.splits.get(row.id)
        if split is None:
            self.report.fault("split", row.id, f"{row.id} is in no split")
        elif self.split_of.setdefault(row.group, split) != split:
            self.report.fault("leakage", row.id, f"group {row.group} is in two splits")

    def finish(self) -> None:
        """What can only be said once all rows were seen."""
        for name in sorted(set(self.dataset.splits) - self.ids):
            self.report.fault("split", name, f"{name} is in {SPLITS} and not in the manifest")
        for path in _files(self.dataset.folder):
            if path not in self.paths:
                self.report.fault("orphan file", path, f"{path} is in no row of the manifest")
        if (self.dataset.folder / UNFINISHED).exists():
            self.report.notes.append(
                f"{UNFINISHED} is there: the run is not finished, go on with --resume"
            )
        for one, other in look_alikes(np.stack(self.hashes)) if self.hashes else []:
            (modality, first), (also, second) = self.names[one], self.names[other]
            if modality == also and len(self.report.alike) < LISTED:
                text = f"{first} and {second} {ALIKE_TEXT}"
                self.report.alike.append(Fault(kind=NEAR, about=second, text=text))


def _files(folder: Path) -> Iterator[str]:
    """Every file under the folders of images, POSIX."""
    for name in IMAGE_FOLDERS:
        for path in sorted((folder / name).rglob("*")):
            if not path.is_dir():
                yield path.relative_to(folder).as_posix()


def _compare_manifests(folder: Path, report: DatasetReport) -> None:
    """Both manifests must hold the same rows, sorted by id and attempt."""
    for name in (PARQUET, TABLE):
        if not (folder / name).is_file():
            report.fault("manifest", name, f"{name} is missing")
    if report.faults:
        return
    before = ("", 0)
    pairs = zip_longest(read_manifest(folder / PARQUET), _readable(folder / TABLE))
    for number, (one, other) in enumerate(pairs, 1):
        if one != other:
            report.fault("manifest", TABLE, f"row {number} of {TABLE} differs from {PARQUET}")
            return
        key = (one["id"], one["attempt"])
        if key <= before:
            report.fault("manifest", one["id"], f"row {number} is out of order, or comes twice")
        before = key


def _readable(path: Path) -> Iterator[dict[str, object] | None]:
    """The CSV's rows, and None for what cannot be read, which equals no row."""
    try:
        yield from read_manifest(path)
    except (BadInput, TypeError):
        yield None

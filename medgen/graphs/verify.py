"""Measuring images from files: each is squared, checked by the panel, and answered on its own.

Takes one image, a folder, or a table whose texts are the prompts. Without a prompt nothing is
asked: then every finding that can be measured is told. An image that cannot be read is answered
with the reason, and the others go on. Nothing here rejects an image for being near a training
image: that gate is for generated candidates only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medgen.agents import anatomy, parser, pathology
from medgen.data.formats import read_rows
from medgen.data.images import load_square, write_atomic
from medgen.errors import BadInput
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.graphs.knowledge import modality_name
from medgen.measure.anatomy import Anatomy
from medgen.measure.anatomy_by_modality import READERS
from medgen.measure.overlay import overlay_png
from medgen.measure.reader import bundled_reader
from medgen.records import Critique, Plan, ReadModality, Request, Verification

SIDE = 256
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".dcm", ".dicom"}
)
TABLES = frozenset({".csv", ".parquet"})


@dataclass(frozen=True)
class Asked:
    """An image and what it should show; `modality` over the one that the prompt names."""

    path: Path
    prompt: str | None
    modality: str | None


def image_files(path: str | Path) -> list[Path]:
    """The image itself, or a folder's images by name, subfolders left out.

    Raises:
        BadInput: There is nothing at `path`, or the folder holds no image.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    if not found:
        raise BadInput(f"no image in {path}: give a folder of {', '.join(sorted(SUFFIXES))} files")
    return found


def verify(
    path: str | Path,
    prompt: str | None = None,
    modality: str | None = None,
    *,
    overlay: str | Path | None = None,
    collaborators: Collaborators | None = None,
) -> Iterator[Verification]:
    """Measure an image, each image of a folder, or each row of a table.

    Args:
        path: An image file, a folder, or a table (`path,text,modal`, CSV or Parquet).
        prompt: What the images should show, in the user's words; a table has its own.
        modality: A modality, over the one that the prompt or the table names; read from each
            image when nothing says one.
        overlay: A folder for pictures of what was measured, one an image.
        collaborators: What verifies; this process's own when None.

    Returns:
        One record an image, in order, each as soon as it is measured. In a folder or a table an
        image that cannot be read, or a text that cannot be understood, is a record with `error`.

    Raises:
        BadInput: The prompt or the modality cannot be understood, the table cannot be read, or
            the one image cannot.
    """
    path = Path(path)
    listed = path.suffix.lower() in TABLES
    if listed and prompt is not None:
        raise BadInput(f"{path} has a text of its own for each image: leave --prompt out")
    chosen = None if modality is None else modality_name(modality)
    rows = _table(path, chosen) if listed else _files(path, prompt, modality)
    alone = not listed and not path.is_dir()
    if alone:
        load_square(path, SIDE)  # so that a wrong path is said before the weights are loaded
    minds = collaborators or shared_collaborators()
    folder = None if overlay is None else Path(overlay)

    def measured() -> Iterator[Verification]:
        for number, asked in enumerate(rows):
            try:
                yield _measure(asked, number, folder, minds)
            except BadInput as error:
                if alone:
                    raise
                yield Verification(
                    path=str(asked.path.resolve()), prompt=asked.prompt, error=str(error)
                )

    return measured()


def _files(path: Path, prompt: str | None, modality: str | None) -> Iterator[Asked]:
    files = image_files(path)
    _plan(prompt, modality)  # said at once, not at the first image
    return (Asked(file, prompt, modality) for file in files)


def _table(path: Path, modality: str | None) -> Iterator[Asked]:
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        raise BadInput(f"{path} has no row: give a table with path,text,modal")

    def listed() -> Iterator[Asked]:
        row: dict[str, str] | None = first
        while row is not None:
            yield Asked(Path(row["path"]), row["text"] or None, modality or row["modal"] or None)
            row = next(rows, None)

    return listed()


def _measure(asked: Asked, number: int, folder: Path | None, minds: Collaborators) -> Verification:
    pixels = load_square(asked.path, SIDE)
    plan = _plan(asked.prompt, asked.modality)
    with minds.turn:
        panel = minds.panel
        plan = plan or Plan(prompt="", modality=_read_modality(pixels))
        critique = panel.verify(pixels, plan, generated=False)
        drawn = None
        if folder is not None:
            reader = READERS.get(plan.modality)
            read = reader(pixels) if reader is not None else Anatomy()
            name = f"{number:05d}_{asked.path.stem}.png"
            drawn = str(write_atomic(folder / name, overlay_png(pixels, read)).resolve())
    return verification(asked.path, asked.prompt, critique, drawn)


def verification(
    path: Path, prompt: str | None, critique: Critique, overlay: str | None = None
) -> Verification:
    """A critique as what is printed of it."""
    read = None
    if critique.modality is not None and critique.modality_confidence is not None:
        read = ReadModality(predicted=critique.modality, confidence=critique.modality_confidence)
    return Verification(
        path=str(path.resolve()),
        prompt=prompt,
        modality=read,
        findings=critique.findings,
        quality=critique.quality,
        nearest_training=critique.nearest_training,
        accepted=critique.accepted,
        corrections=critique.corrections,
        rejections=critique.rejections,
        abstentions=critique.abstentions,
        disagreements=critique.disagreements,
        anatomy=critique.anatomy,
        alignment=critique.alignment,
        score=critique.score,
        overlay=overlay,
        critique=critique,
    )


def _plan(prompt: str | None, modality: str | None) -> Plan | None:
    if prompt is not None:
        plan = parser.parse(Request(prompt=prompt, modality=modality))
        return pathology.assess(anatomy.localize(plan))
    if modality is None:
        return None
    return Plan(prompt="", modality=modality_name(modality))


def _read_modality(pixels: np.ndarray) -> str:
    """The likeliest modality that has checks; the panel rejects what looks like none of them."""
    likely = bundled_reader().read(pixels[None])[0].modality_probabilities
    known = {name: chance for name, chance in likely.items() if name != "none"}
    return max(known, key=known.__getitem__)

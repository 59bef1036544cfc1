"""Measuring images from files: each is squared, checked by the panel, and answered on its own.

Without a prompt nothing is asked, so findings are empty and modality, quality and the distance to
the training images are told. Nothing here rejects an image for being near a training image: that
gate is for generated candidates only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medgen.agents import anatomy, parser, pathology
from medgen.data.images import load_square
from medgen.errors import BadInput
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.graphs.knowledge import modality_name
from medgen.measure.reader import Reader
from medgen.records import Plan, Request, Verification

SIDE = 256
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


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
    collaborators: Collaborators | None = None,
) -> Iterator[Verification]:
    """Measure an image or each image of a folder.

    Args:
        path: An image file or a folder.
        prompt: What the images should show, in the user's words.
        modality: A modality, over the one that the prompt names; read from each image when
            neither says one.
        collaborators: What verifies; this process's own when None.

    Returns:
        One record an image, in the order of names, each as soon as it is measured.

    Raises:
        BadInput: The prompt or the modality cannot be understood, or an image cannot be read.
    """
    files = image_files(path)
    plan = _plan(prompt, modality)
    load_square(files[0], SIDE)  # so that a wrong path is said before the weights are loaded
    minds = collaborators or shared_collaborators()
    with minds.turn:
        panel = minds.panel
        reader = Reader.load() if plan is None else None

    def measured() -> Iterator[Verification]:
        for file in files:
            pixels = load_square(file, SIDE)
            with minds.turn:
                asked = plan or Plan(prompt="", modality=_read_modality(pixels, reader))
                critique = panel.verify(pixels, asked, generated=False)
            yield Verification(image=str(file.resolve()), prompt=prompt, critique=critique)

    return measured()


def _plan(prompt: str | None, modality: str | None) -> Plan | None:
    if prompt is not None:
        plan = parser.parse(Request(prompt=prompt, modality=modality))
        return pathology.assess(anatomy.localize(plan))
    if modality is None:
        return None
    return Plan(prompt="", modality=modality_name(modality))


def _read_modality(pixels: np.ndarray, reader: Reader | None) -> str:
    """The likeliest modality that has checks; the panel rejects what looks like none of them."""
    assert reader is not None
    likely = reader.read(pixels[None])[0].modality_probabilities
    known = {name: chance for name, chance in likely.items() if name != "none"}
    return max(known, key=known.__getitem__)

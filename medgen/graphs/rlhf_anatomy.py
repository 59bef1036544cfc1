"""Anatomy of a round's drawings before and after, by measurement: what readers do not see.

A reader may be pleased by a second optic disc; counts and extents are not. The verifier's anatomy
modules read it, which no stage of a round optimises unless its labels come from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgen.agents.verifier.anatomy_checks import anatomy_measurements, anatomy_rejections
from medgen.evaluation.paired import Change, Resampling, share_change
from medgen.evaluation.tables import ImageTable
from medgen.measure.anatomy_by_modality import READERS
from medgen.records import Measurement

IMPLAUSIBLE = "anatomy unlike real images"
SCORER = "the verifier's anatomy"
BATCH = 32


def implausible(table: ImageTable) -> np.ndarray:
    """(n,) 1 for images with a count or extent that few real images of their modality have, else 0.

    Outside their range (`anatomy_measurements`), or a count that rejects; NaN for a modality
    without an anatomy module. A tenth of a second an image.
    """
    flags: list[float] = []
    for images in table.batches(BATCH):
        rows = table.rows[len(flags) : len(flags) + len(images)]
        flags += [_unlike(image, row.modal) for image, row in zip(images, rows, strict=True)]
    return np.array(flags)


def _unlike(image: np.ndarray, modality: str) -> float:
    if modality not in READERS:
        return float("nan")
    anatomy = READERS[modality](image)
    outside = any(_outside(one) for one in anatomy_measurements(anatomy, modality))
    return float(outside or bool(anatomy_rejections(anatomy, modality)))


def _outside(one: Measurement) -> bool:
    low, high = one.expected or (None, None)
    return (low is not None and one.value < low) or (high is not None and one.value > high)


def anatomy_change(
    before: np.ndarray,
    after: Sequence[np.ndarray],
    table: ImageTable,
    modality: str,
    resampling: Resampling,
) -> Change | None:
    """How the share of drawings with implausible anatomy changed.

    Args:
        before: (n,) from `implausible`.
        after: The same of each set that is averaged.
        table: Whose images these are, for their groups and modalities.
        modality: Whose change.
        resampling: Of whole prompts.

    Returns:
        None for a modality that has no anatomy module.
    """
    if modality not in READERS:
        return None
    own = np.array([row.modal == modality for row in table.rows])
    return share_change(
        IMPLAUSIBLE, modality, SCORER, before[own], [one[own] for one in after],
        table.groups[own], resampling,
    )  # fmt: skip

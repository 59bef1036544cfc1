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


def implausible(table: ImageTable, modality: str) -> np.ndarray:
    """(n,) bool: images with a count or extent that few real images of the modality have.

    Outside their 1st to 99th percentile, or a count that rejects.
    """
    flags = []
    for images in table.batches(BATCH):
        for image in images:
            anatomy = READERS[modality](image)
            outside = any(_outside(one) for one in anatomy_measurements(anatomy, modality))
            flags.append(outside or bool(anatomy_rejections(anatomy, modality)))
    return np.array(flags)


def _outside(one: Measurement) -> bool:
    low, high = one.expected or (None, None)
    return (low is not None and one.value < low) or (high is not None and one.value > high)


def anatomy_change(
    before: ImageTable, after: Sequence[ImageTable], modality: str, resampling: Resampling
) -> Change | None:
    """How the share of drawings with implausible anatomy changed; None without a module for it."""
    tables = [table.where(lambda row: row.modal == modality) for table in (before, *after)]
    if modality not in READERS or not len(tables[0]):
        return None
    shares = [implausible(table, modality).astype(float) for table in tables]
    return share_change(
        IMPLAUSIBLE, modality, SCORER, shares[0], shares[1:], tables[0].groups, resampling
    )

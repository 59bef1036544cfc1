"""Which module reads the anatomy of which modality, and what it reads of a chest film in one go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medgen.measure.anatomy import Anatomy
from medgen.measure.brain import measure_brain
from medgen.measure.chest import ChestMeasurement, bundled_segmenter
from medgen.measure.chest_ct import measure_chest_ct
from medgen.measure.chest_geometry import clean
from medgen.measure.chest_signs import chest_signs, fine_structure
from medgen.measure.fundus import measure_fundus
from medgen.measure.optical_coherence import measure_oct
from medgen.measure.view import ap_probability

CHEST = "Chest X-ray"


def chest_anatomy(image: np.ndarray, masks: np.ndarray, measured: ChestMeasurement) -> Anatomy:
    """Signs, ratio and opacities of a segmented film, as one reading.

    Args:
        image: (256, 256, 3) uint8.
        masks: (3, 128, 128) probabilities of `medgen.measure.segmentation.STRUCTURES`.
        measured: The ratio and the opacities.
    """
    signs = chest_signs(masks)
    values = dict(signs.values)
    values["ap_probability"] = ap_probability(image)
    structure = fine_structure(image, clean(masks)[:2].max(axis=0))
    if structure is not None:
        values["lung_fine_structure"] = structure
    readings = {
        "cardiothoracic_ratio": measured.ratio,
        "opacity_right": measured.opacity_right,
        "opacity_left": measured.opacity_left,
    }
    zones = {f"opacity_{zone.replace(' ', '_')}": v for zone, v in (measured.zones or {}).items()}
    values |= {name: value for name, value in readings.items() if value is not None} | zones
    missing = list(signs.missing)
    if measured.ratio is None and measured.reason and not missing:
        missing.append(f"cardiothoracic ratio: {measured.reason}")
    if "costophrenic_depth_right" in values:
        depths = (values["costophrenic_depth_right"], values["costophrenic_depth_left"])
        values["costophrenic_depth"] = min(depths)
    return Anatomy(values, missing, signs.outlines, signs.lines, signs.boxes)


def measure_chest_film(image: np.ndarray) -> Anatomy:
    """Read one frontal chest film, (H, H, 3) uint8."""
    masks = bundled_segmenter().segment(image[None])
    measured = bundled_segmenter().measure(image[None], masks)[0]
    return chest_anatomy(image, masks[0], measured)


READERS: dict[str, Callable[[np.ndarray], Anatomy]] = {
    "Brain MRI": measure_brain,
    "Chest CT": measure_chest_ct,
    CHEST: measure_chest_film,
    "Fundus": measure_fundus,
    "OCT": measure_oct,
}

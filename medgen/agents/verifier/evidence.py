"""What can be read from one image, each thing read at most once and only when a check asks."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from medgen.measure.anatomy import Anatomy
from medgen.measure.anatomy_by_modality import CHEST, READERS, chest_anatomy
from medgen.measure.chest import ChestMeasurement, bundled_segmenter
from medgen.measure.memorisation import nearest_training
from medgen.measure.quality import measure_quality
from medgen.measure.reader import POPULATION, Reader, Reading
from medgen.records import AgeGroup, NearestTraining, Plan, Quality


class Evidence:
    """One (H, H, 3) uint8 image and what was measured on it so far."""

    def __init__(self, image: np.ndarray, reader: Reader) -> None:
        self.image = np.array(image)
        self._reader = reader
        self._anatomy: dict[str, Anatomy] = {}

    @cached_property
    def reading(self) -> Reading:
        """Modality and findings as the reader sees them."""
        return self._reader.read(self.image[None])[0]

    @cached_property
    def chest(self) -> ChestMeasurement:
        """Ratio and opacities; only meaningful for a chest X-ray."""
        return bundled_segmenter().measure(self.image[None], self.chest_masks[None])[0]

    @cached_property
    def chest_masks(self) -> np.ndarray:
        """(3, 128, 128) probabilities of lungs and cardiomediastinum."""
        return np.asarray(bundled_segmenter().segment(self.image[None])[0])

    def anatomy(self, modality: str) -> Anatomy:
        """What the modality's anatomy module reads; empty for a modality without one."""
        if modality not in self._anatomy:
            if modality == CHEST:
                read = chest_anatomy(self.image, self.chest_masks, self.chest)
            else:
                read = READERS[modality](self.image) if modality in READERS else Anatomy()
            self._anatomy[modality] = read
        return self._anatomy[modality]

    def quality(self, modality: str) -> Quality:
        """Technical quality, judged as an image of `modality`."""
        return measure_quality(self.image, modality)

    def nearest_training(self, modality: str) -> NearestTraining:
        """Nearest training image of the modality."""
        return nearest_training(self.image[None], [modality])[0]

    def population(self, plan: Plan) -> AgeGroup:
        """Whose film it is: as asked, else as read from a chest X-ray."""
        if plan.age_group is not None:
            return plan.age_group
        return "child" if self.reading.heads[POPULATION]["child"] > 0.5 else "adult"

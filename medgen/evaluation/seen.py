"""A table and what alignment's scorers read from each of its images, each image read once.

Knows tables and scorers; knows no request and no figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medgen.evaluation import chest, reader
from medgen.evaluation.asked import CHEST_FILM
from medgen.evaluation.clip import Scorer
from medgen.evaluation.context import Context
from medgen.evaluation.estimates import Sample
from medgen.evaluation.figures import OVERALL
from medgen.evaluation.tables import ImageTable

BATCH = 32
REAL = "real images with their own texts"


@dataclass(frozen=True)
class Seen:
    """A table and what each scorer read from each of its images."""

    table: ImageTable
    readings: list[reader.Reading]
    films: list[chest.Film | None]
    embeddings: np.ndarray

    def within(self, scope: str) -> np.ndarray:
        """(n,) bool: the images of a modality, all for "overall"."""
        return np.array([scope in (OVERALL, row.modal) for row in self.table.rows])

    def sample(self, values: np.ndarray, chosen: np.ndarray) -> Sample:
        """Values (n, ...) of the chosen images, (n,) bool, with their groups."""
        return Sample(values[chosen], self.table.groups[chosen])


def look(context: Context, table: ImageTable, scorer: Scorer) -> Seen:
    """Every scorer on every image once, images streamed."""
    readings: list[reader.Reading] = []
    films: list[chest.Film | None] = []
    embeddings = []
    for images in table.batches(BATCH):
        rows = table.rows[len(readings) : len(readings) + len(images)]
        readings += reader.read(images)
        embeddings.append(scorer.image_embeddings(images))
        part: list[chest.Film | None] = [None] * len(images)
        inside = [i for i, row in enumerate(rows) if row.modal == CHEST_FILM]
        if inside:
            for i, film in zip(inside, chest.read_films(images[inside]), strict=True):
                part[i] = film
        films += part
        context.progress(f"alignment: {table.name} images", len(readings), len(table))
    return Seen(table, readings, films, np.concatenate(embeddings))

"""The sample grid of a run: the same prompts and seeds, drawn by the weights of the moment."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from medgen.data.images import save_synthetic_png
from medgen.generator.base import Generator
from medgen.generator.training.config import SamplesConfig
from medgen.records import Conditioning


def draw_grid(generator: Generator, config: SamplesConfig, path: Path) -> Path:
    """Draw the configuration's prompts into one PNG.

    Args:
        generator: What draws, with the configuration's steps and guidance.
        config: Prompts and seed.
        path: Where the grid goes, about as many columns as rows.
    """
    pictures = generator.sample(
        [
            Conditioning(
                prompt=entry.prompt,
                modality=entry.modality,
                structured=entry.structured,
                seed=config.seed + index,
            )
            for index, entry in enumerate(config.prompts)
        ]
    )
    columns = math.ceil(len(pictures) ** 0.5)
    rows = math.ceil(len(pictures) / columns)
    size = pictures.shape[1]
    grid = np.zeros((rows * size, columns * size, 3), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = divmod(index, columns)
        grid[top * size : (top + 1) * size, left * size : (left + 1) * size] = picture
    prompts = "; ".join(entry.prompt for entry in config.prompts)
    return save_synthetic_png(path, grid, {"Prompts": prompts, "Seed": str(config.seed)})

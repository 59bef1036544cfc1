"""Runs of phantom images to look at and to rate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from phantom import phantom_collaborators
from PIL import Image
from studios import Place

from medgen.graphs.agent import Agent
from medgen.settings import settings

PROMPTS = (
    "cardiomegaly, chest X-ray",
    "normal heart size, chest X-ray",
    "severe cardiomegaly, chest X-ray",
    "cardiomegaly with right pleural effusion, chest X-ray",
)
RUNS = 14


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Runs in the log, and a folder of noise that stands for real films."""
    root = tmp_path_factory.mktemp("studio")
    made = Place(root / "runs", root / "log.sqlite", root / "real", root / "knowledge")
    made.real.mkdir()
    noise = np.random.default_rng(3)
    for number in range(12):
        film = noise.integers(0, 255, (160, 140), dtype=np.uint8)
        Image.fromarray(film).save(made.real / f"film{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        settings.cache_clear()
        agent = Agent(phantom_collaborators())
        for seed in range(RUNS):
            agent.run(PROMPTS[seed % len(PROMPTS)], seed=seed, rounds=2, candidates=3)
        yield made
    settings.cache_clear()

"""A small dataset for the tests of this room."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataset_samples import write_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four films, two fundi and a rejected film."""
    return write_dataset(tmp_path / "small")

"""A small dataset for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_samples import write_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four films, two fundi and a rejected film."""
    return write_dataset(tmp_path / "small")

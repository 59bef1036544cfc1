"""`import medgen`: quick, and every promised name leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import medgen


def test_importing_medgen_imports_nothing_heavy() -> None:
    heavy = ("torch", "langgraph", "numpy", "pydantic", "lightrag", "diffusers", "transformers")
    code = f"import sys, medgen; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_every_name_leads_to_its_home() -> None:
    for name in medgen.__all__:
        assert getattr(medgen, name) is not None
    for name, (module, attribute) in medgen.HOMES.items():
        assert getattr(medgen, name) is getattr(import_module(module), attribute)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = medgen.x


def test_load_refuses_unknown_backends() -> None:
    with pytest.raises(medgen.BadInput, match="nonsense"):
        medgen.load("nonsense")

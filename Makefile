# Builds its own .venv with pip; every target works from a fresh clone.

PYTHON ?= python3
PROMPT ?= cardiomegaly, chest X-ray
BIN := .venv/bin

.PHONY: agent doctor test docs clean

agent: .venv/.installed
	$(BIN)/medgen agent "$(PROMPT)"

doctor: .venv/.installed
	$(BIN)/medgen doctor

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

docs: .venv/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -e .
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install -e ".[dev]"
	@touch .venv/.installed $@

clean:
	rm -rf .venv build dist site *.egg-info

"""`medgen serve` and `medgen mcp` on the command line: what they refuse before they listen."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from medgen import cli
from medgen.access import TOKEN_VARIABLE
from medgen.settings import settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setenv("MEDGEN_RUNS", str(tmp_path / "runs"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def medgen(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), env=variables)


def assert_one_line(result: Result, says: str) -> None:
    assert result.exit_code == 2, (result.stdout, result.stderr)
    assert result.stdout == ""
    (line,) = [one for one in result.stderr.splitlines() if one.startswith("error: ")]
    assert says in line


@pytest.mark.parametrize("command", [["serve"], ["mcp", "--http"]])
def test_other_machines_need_a_token(command: list[str], tmp_path: Path) -> None:
    assert_one_line(medgen(*command, "--host", "0.0.0.0"), "--token")
    short = medgen(*command, "--host", "0.0.0.0", **{TOKEN_VARIABLE: "short"})
    assert_one_line(short, "16 or more")
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_taken_is_bad_input() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_one_line(medgen("serve", "--port", port), "choose another --port")


def test_runs_that_cannot_be_written_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(medgen("serve", "--runs", str(tmp_path / "file")), "--runs")


@pytest.mark.parametrize("command", ["serve", "mcp"])
def test_help_has_examples_and_no_secret(command: str) -> None:
    result = medgen(command, "--help", **{TOKEN_VARIABLE: "correct-horse-battery"})
    assert result.exit_code == 0 and f"medgen {command}" in result.stdout
    assert "Examples" in result.stdout and "correct-horse" not in result.stdout

"""Every command in the documentation is run, or read by the real parser with a reason listed.

`commands.yaml` says which pages are run and why the rest is not. Blocks fenced without a language,
or as bash or sh, are commands; other text takes a language (text, csv).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from medgen.cli import app
from medgen.settings import Settings, settings

ROOT = Path(__file__).resolve().parents[2]
LISTED = yaml.safe_load(Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SHELL = {"", "bash", "sh"}
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*medgen [a-z][^`]*)`")
SETTING = re.compile(r"^((?:[A-Z_]+=(?:\$\([^)]*\)|'[^']*'|\S+) )*)(.*)$", flags=re.DOTALL)
OTHER_COMMANDS = {">", "|", ";", "&&"}


@dataclass(frozen=True)
class Command:
    """A command line of a page, comments and what it is piped into left out."""

    page: str
    line: str

    @cached_property
    def words(self) -> list[str]:
        words = shlex.split(SETTING.match(self.line)[2], comments=True)  # type: ignore[index]
        ends = [place for place, word in enumerate(words) if word in OTHER_COMMANDS]
        return words[: ends[0]] if ends else words

    @property
    def entry(self) -> dict[str, Any] | None:
        """Where it is listed as not run."""
        for entry in LISTED["dry"]:
            if entry.get("page", self.page) == self.page and re.search(
                entry["commands"], self.line
            ):
                return entry
        return None


def commands_of(path: Path) -> Iterator[Command]:
    for language, block in FENCED.findall(path.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").splitlines() if language in SHELL else []
        for line in lines:
            if line.strip() and not line.startswith("#"):
                yield Command(path.relative_to(ROOT).as_posix(), " ".join(line.split()))


SHOWN = [command for path in PAGES for command in commands_of(path)]
RUN = [
    command
    for page in LISTED["run"]
    for command in SHOWN
    if command.page == page and command.words[0] == "medgen" and command.entry is None
]
INLINE_SHOWN = sorted(
    {
        Command(path.relative_to(ROOT).as_posix(), found)
        for path in PAGES
        for found in INLINE.findall(FENCED.sub("", path.read_text(encoding="utf-8")))
    },
    key=lambda command: (command.page, command.line),
)


def name(command: Command) -> str:
    return f"{command.page}: {command.line}"


def leaves(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from leaves(command)
        else:
            yield command


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What medgen's parser says against a command line; nothing is done."""
    parser: Any = typer.main.get_command(app)
    for leaf in leaves(parser):
        leaf.callback = lambda **given: None
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        parser.main(words[1:], prog_name="medgen")
    said = capsys.readouterr()
    return said.err if ended.value.code else ""


def checked_otherwise(command: Command) -> bool:
    """Look up what a command of another program names."""
    program, *words = command.words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        return all(re.search(rf"^{word}:", makefile, flags=re.MULTILINE) for word in words)
    if program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = re.findall(r"medgen\[(.*?)\]", command.line)
        return all(extra in project["optional-dependencies"] for extra in extras)
    if program in ("python", "pytest"):
        files = [word for word in words if word.startswith(("tests/", "docs/"))]
        modules = [words[1]] if words[0] == "-m" else []
        assert files or modules
        return all((ROOT / file).exists() for file in files) and all(
            importlib.util.find_spec(module) for module in modules
        )
    return program in ("curl", "export", "srun", "accelerate")


def test_pages_that_are_run_have_commands_and_every_listed_reason_is_used() -> None:
    assert {command.page for command in RUN} == set(LISTED["run"])
    used = [command.entry for command in SHOWN]
    assert [entry for entry in LISTED["dry"] if entry not in used] == []
    assert all(len(entry["reason"]) > 20 for entry in LISTED["dry"])


@pytest.mark.parametrize("command", SHOWN, ids=name)
def test_a_command_is_run_or_has_a_reason_and_is_read(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in RUN or command.entry is not None, "run it or list it in commands.yaml"
    if command.entry is not None and command.entry.get("parse") is False:
        return
    if command.words[0] == "medgen":
        assert refusal(command.words, capsys) == ""
    else:
        assert checked_otherwise(command)


@pytest.mark.parametrize("command", INLINE_SHOWN, ids=name)
def test_a_command_within_a_sentence_names_what_there_is(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal([word for word in command.words if word != "..."], capsys)
    # An argument may be left out of a sentence, or be a letter for a number.
    assert "No such" not in said and "unexpected" not in said, said


def test_examples_of_help_pages_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    parser: Any = typer.main.get_command(app)
    lines = [line for leaf in leaves(parser) for line in (leaf.epilog or "").splitlines()[1:]]
    shown = [Command("--help", line) for line in lines if " medgen " in f" {line}"]
    assert len(shown) > 30
    for command in shown:
        if command.words[0] == "medgen":
            assert refusal(command.words, capsys) == "", command.line


def test_a_wrong_option_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--sed" in refusal(["medgen", "agent", "x", "--sed", "7"], capsys)
    assert "drw" in refusal(["medgen", "drw"], capsys)
    assert not checked_otherwise(Command("README.md", "make nothing"))
    assert not checked_otherwise(Command("README.md", 'pip install "medgen[nothing]"'))


def trained() -> list[Command]:
    """Commands that train by a configuration of the repository."""
    found = [
        one for one in SHOWN if {"medgen.cli", "medgen"} & set(one.words) and "train" in one.words
    ]
    return [one for one in found if (ROOT / one.words[one.words.index("train") + 1]).is_file()]


@pytest.mark.parametrize("command", trained(), ids=name)
def test_a_training_command_has_a_right_configuration(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    from medgen.generator.training.config import load_config, parse_changes

    if command.words[0] == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        given = launch_command_parser().parse_args(command.words[2:])
        assert given.module and given.training_script == "medgen.cli"
    words = command.words[command.words.index("train") :]
    assert refusal(["medgen", *words], capsys) == ""
    changes = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    load_config(ROOT / words[1], parse_changes(changes))


def test_every_variable_in_the_documentation_is_one() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "medgen").rglob("*.py"))
    known = {f"MEDGEN_{field.upper()}" for field in Settings.model_fields}
    for path in PAGES:
        for variable in re.findall(r"MEDGEN_[A-Z_]+[A-Z]", path.read_text(encoding="utf-8")):
            assert variable in known or f'"{variable}"' in code, f"{path.name}: {variable}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a reader would stand: a clone's examples, a store and a log of one's own."""
    from medgen.graphs.collaborators import shared_collaborators

    place = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", place / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for variable, value in {
            "KNOWLEDGE": str(place / "knowledge"),
            "FEEDBACK": str(place / "feedback.sqlite"),
            "STEPS": "2",
            "ROUNDS": "1",
        }.items():
            patch.setenv(f"MEDGEN_{variable}", value)
        settings.cache_clear()
        shared_collaborators.cache_clear()
        yield place
    settings.cache_clear()
    shared_collaborators.cache_clear()


@pytest.mark.parametrize("command", RUN, ids=name)
def test_a_command_of_a_page_that_is_run_ends_well(
    command: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(command.words[1:], prog_name="medgen")
    said = capsys.readouterr()
    drawn = command.words[1] == "agent" or command.words[1:3] == ["trace", "fork"]
    assert ended.value.code in ((0, 3) if drawn else (0,)), said.err
    assert said.out.strip()


def test_what_the_pages_promise_lies_there_after_their_commands(folder: Path) -> None:
    for made in (
        "first/image.png",
        "first/trace.html",
        "larger/run.json",
        "pictures/drawing.json",
        "table.csv",
        "ratings.csv",
        "other.sqlite",
    ):
        assert (folder / made).is_file(), made

"""The command line: exit codes, one-line errors, JSON alone on stdout, no trace of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from medgen import cli
from medgen.console.progress import LiveSteps
from medgen.console.text import one_line
from medgen.errors import BadInput
from medgen.records import (
    Conditioning,
    ControlResult,
    Drawing,
    Finding,
    ImageResult,
    Run,
    TraceEvent,
)

COMMANDS = ("agent", "generate", "plan", "verify", "doctor")
UNUSABLE = {
    "empty": ("", "prompt is empty"),
    "blank": ("  \t ", "prompt is empty"),
    "cannot be drawn": ("breast with tumor, MRI", "can be planned but not drawn"),
    "not in this modality": ("drusen, chest X-ray", "ask for it in Fundus"),
    "contradiction": ("normal heart with cardiomegaly, chest X-ray", "contradict"),
    "too long": ("cardiomegaly, chest X-ray " * 400, "characters"),
    "control characters": ("cardiomegaly,\x1b[31m chest X-ray\x07", "control character"),
    "nothing understood": ("asdf qwer zxcv", "nothing understood"),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.DEBUG, raising=False)
    yield tmp_path


def medgen(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def outside(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medgen.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )


def assert_one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, (result.stdout, result.stderr)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()
    return lines[0]


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys\nfrom medgen.cli import app\n"
        "try:\n app(['--help'])\nexcept SystemExit as end:\n assert end.code == 0\n"
        "heavy = {'torch', 'diffusers', 'langgraph', 'faiss', 'numpy', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "agent" in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "knowledge"])
def test_each_command_explains_itself_with_examples(command: str) -> None:
    result = medgen(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    if command != "knowledge":
        assert f"medgen {command}" in result.stdout.split("Examples:")[1]


def test_no_arguments_shows_help_and_version_prints_one_line() -> None:
    assert "Commands" in medgen().stdout
    version = medgen("--version")
    assert version.exit_code == 0
    assert version.stdout.startswith("medgen 0.")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("generate", "glioma, brain MRI", "-n", "0"), "-n"),
        (("generate", "glioma, brain MRI", "-n", "65"), "-n"),
        (("agent", "glioma, brain MRI", "-n", "-1"), "-n"),
        (("generate", "glioma, brain MRI", "-n", "two"), "-n"),
        (("generate", "glioma, brain MRI", "--seed", "-1"), "--seed"),
        (("agent", "glioma, brain MRI", "--seed", str(2**32)), "--seed"),
        (("generate", "glioma, brain MRI", "--steps", "1"), "--steps"),
        (("generate", "glioma, brain MRI", "--steps", "1001"), "--steps"),
        (("generate", "glioma, brain MRI", "--guidance", "0.5"), "--guidance"),
        (("generate", "glioma, brain MRI", "--guidance", "31"), "--guidance"),
        (("generate", "glioma, brain MRI", "--guidance", "nan"), "guidance"),
        (("agent", "glioma, brain MRI", "--rounds", "0"), "--rounds"),
        (("agent", "glioma, brain MRI", "--candidates", "0"), "--candidates"),
        (("generate", "glioma, brain MRI", "--structured", "view"), "KEY=VALUE"),
        (("generate", "glioma, brain MRI", "--structured", "=PA"), "KEY=VALUE"),
        (("generate", "glioma, brain MRI", "--structured", "colour=red"), "colour"),
        (("generate", "glioma, brain MRI", "--structured", "view=LATERAL"), "view"),
        (
            ("generate", "glioma, brain MRI", "--structured", "cardiothoracic_ratio=inf"),
            "cardiothoracic_ratio",
        ),
        (("generate",), "prompt"),
        (("generate", "glioma, brain MRI", "--nonsense"), "--nonsense"),
        (("draw", "glioma, brain MRI"), "draw"),
        (("agent",), "prompt"),
        (("agent", "--resume", "no-such-run"), "no-such-run"),
        (("knowledge", "query", "x"), "characters"),
        (("knowledge", "query", "enlarged heart", "--modality", "sonar of cats"), "sonar"),
        (("verify", "no-such-image.png", "--prompt", "glioma, brain MRI"), "no-such-image.png"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(
    arguments: tuple[str, ...], named: str, elsewhere: Path
) -> None:
    assert named in assert_one_line(medgen(*arguments), 2)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("command", ["generate", "agent"])
def test_unusable_prompts_are_one_line_and_write_nothing(
    command: str, kind: str, elsewhere: Path
) -> None:
    prompt, said = UNUSABLE[kind]
    line = assert_one_line(medgen(command, prompt), 2)
    assert said in line and len(line) < 600
    assert list(elsewhere.iterdir()) == []


def test_undrawable_modality_is_planned_and_says_what_can_be_drawn() -> None:
    prompt, said = UNUSABLE["cannot be drawn"]
    planned = medgen("plan", prompt, "--json")
    assert planned.exit_code == 0, planned.stderr
    assert "breast" in json.loads(planned.stdout)["modality"].lower()
    line = assert_one_line(medgen("generate", prompt), 2)
    assert said in line and "Chest X-ray" in line


def test_folder_that_cannot_be_written_is_bad_input(elsewhere: Path) -> None:
    (elsewhere / "file").write_text("not a folder")
    for command in ("generate", "agent"):
        out = str(elsewhere / "file" / "below")
        line = assert_one_line(medgen(command, "glioma, brain MRI", "--out", out), 2)
        assert "file" in line
    assert [path.name for path in elsewhere.iterdir()] == ["file"]


def test_wrong_setting_is_bad_input(elsewhere: Path) -> None:
    done = outside("generate", "glioma, brain MRI", MEDGEN_STEPS="many")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "MEDGEN_STEPS" in done.stderr
    done = outside("generate", "glioma, brain MRI", MEDGEN_BACKEND="crayons")
    assert done.returncode == 2
    assert "crayons" in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_unexpected_failure_is_one_line_and_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the floor\ngave way")

    monkeypatch.setattr("medgen.graphs.generate.generate", fail)
    line = assert_one_line(medgen("generate", "glioma, brain MRI"), 1)
    assert "the floor gave way" in line and cli.DEBUG in line
    monkeypatch.setenv(cli.DEBUG, "1")
    result = medgen("generate", "glioma, brain MRI")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def drawing(prompt: str, folder: Path) -> Drawing:
    return Drawing(
        images=[str(folder / "image.png")],
        prompt=prompt,
        conditioning=Conditioning(prompt=prompt, modality="Brain MRI"),
        noise_seeds=[1],
        seconds=1.0,
        generator="compact",
        fingerprint="ab" * 8,
    )


def test_json_stays_alone_on_stdout_whatever_libraries_print(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    def chatty(prompt: str, **_: object) -> Drawing:
        print("loading weights...")
        return drawing(prompt, elsewhere)

    monkeypatch.setattr("medgen.graphs.generate.generate", chatty)
    result = medgen("generate", "glioma, brain MRI", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["prompt"] == "glioma, brain MRI"
    assert result.stdout.count("\n") == 1
    assert "loading" in result.stderr


def test_markup_and_control_characters_are_shown_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    prompt = "[bold red]glioma[/] :smile: \x1b[2J, brain MRI"
    monkeypatch.setattr(
        "medgen.graphs.generate.generate", lambda *_, **__: drawing(prompt, elsewhere)
    )
    shown = medgen("generate", "glioma, brain MRI").stdout
    assert "[bold red]glioma[/] :smile: \\x1b[2J, brain MRI" in " ".join(shown.split())
    assert "\x1b" not in shown
    assert one_line("a\nb\x07") == "a b\\x07"


def test_reasoning_lines_wait_for_the_first_draw(capsys: pytest.CaptureFixture[str]) -> None:
    def event(node: str, **outputs: object) -> TraceEvent:
        return TraceEvent(node=node, started="", seconds=0.1, outputs=outputs)

    with pytest.raises(BadInput), LiveSteps(visible=True) as steps:
        steps.event(event("parse", warnings=["read as cardiomegaly"]))
        raise BadInput("cannot be drawn")
    assert capsys.readouterr() == ("", "")
    with LiveSteps(visible=True) as steps:
        steps.start("parse")
        steps.event(event("parse", warnings=["read as cardiomegaly"]))
        steps.start("generate")
        shown = capsys.readouterr().err
        assert "parse" in shown and "note: read as cardiomegaly" in shown
        steps.event(event("generate", warnings=["read as cardiomegaly"]))
        shown = capsys.readouterr().err
        assert "generate" in shown and "note" not in shown
    with LiveSteps(visible=False) as steps:
        steps.start("generate")
        steps.event(event("generate"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("accepted", "code"), [(True, 0), (False, 3), (None, 3)])
def test_agent_exit_code_and_table_follow_acceptance(
    accepted: bool | None, code: int, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    verdict = {True: "confirmed", False: "contradicted", None: "abstain"}[accepted]
    findings = [Finding.model_validate({"finding": "cardiomegaly", "verdict": verdict})]
    control = ControlResult(
        accepted=False,
        image="/tmp/control.png",
        findings=[Finding(finding="cardiomegaly", verdict="contradicted")],
    )
    result = ImageResult(
        image="/tmp/image.png",
        accepted=accepted,
        candidate="image0-round1-1",
        findings=findings,
        control=control,
    )
    run = Run(
        run_id="20260101-run",
        accepted=accepted,
        images=[result.image],
        findings=findings,
        control=control,
        rounds=1,
        candidates=2,
        seconds=3.0,
        trace="/tmp/trace.jsonl",
        results=[result],
    )
    monkeypatch.setattr("medgen.graphs.agent.Agent.run", lambda *_, **__: run)
    shown = medgen("agent", "cardiomegaly, chest X-ray")
    assert shown.exit_code == code
    assert verdict in shown.stdout and "contradicted" in shown.stdout
    assert "/tmp/image.png" in shown.stdout and "/tmp/control.png" in shown.stdout
    as_json = medgen("agent", "cardiomegaly, chest X-ray", "--json")
    assert as_json.exit_code == code
    contract = {
        "run_id",
        "accepted",
        "images",
        "findings",
        "control",
        "rounds",
        "candidates",
        "seconds",
        "trace",
    }
    assert contract <= json.loads(as_json.stdout).keys()


def test_generate_draws_the_same_bytes_for_the_same_seed(elsewhere: Path) -> None:
    """Needs the bundled generator."""
    shown = []
    for name in ("a", "b"):
        result = medgen(
            "generate", "cardiomegaly, chest X-ray", "--seed", "5", "--steps", "2",
            "-n", "2", "--out", name, "--json",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        shown.append(json.loads(result.stdout))
    first, second = ([Path(path).read_bytes() for path in one["images"]] for one in shown)
    assert first == second
    assert first[0] != first[1]
    assert [Path(path).name for path in shown[0]["images"]] == ["image_0.png", "image_1.png"]
    assert all(Path(path).is_absolute() for path in shown[0]["images"])
    assert shown[0]["fingerprint"]
    written = json.loads((elsewhere / "a" / "drawing.json").read_text())
    assert written == shown[0]
    again = medgen("generate", "cardiomegaly, chest X-ray", "-n", "2", "--out", "a")
    assert "already holds" in assert_one_line(again, 2)


def test_knowledge_store_answers_with_ids() -> None:
    result = medgen("knowledge", "query", "enlarged heart", "--modality", "chest X-ray", "--json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["modality"] == "Chest X-ray"
    assert answer["facts"] and all(fact["id"] and fact["source"] for fact in answer["facts"])
    assert any("heart" in fact["text"].lower() for fact in answer["facts"])
    shown = medgen("knowledge", "query", "enlarged heart", "-k", "1").stdout
    assert "enlarged" in shown and "MEDGEN:" in shown


def test_bad_input_class_and_exit_codes_agree() -> None:
    assert BadInput.exit_code == cli.UNACCEPTABLE_ARGUMENTS


def test_generated_files_say_that_they_are_synthetic(elsewhere: Path) -> None:
    """Needs the bundled generator."""
    from PIL import Image

    result = medgen("generate", "glaucoma, fundus", "--steps", "2", "--out", "f", "--json")
    assert result.exit_code == 0, result.stderr
    with Image.open(json.loads(result.stdout)["images"][0]) as image:
        assert "Synthetic" in image.info["Description"]
        assert image.info["Verdict"] == "not verified"
        assert np.asarray(image).shape == (256, 256, 3)


@pytest.mark.parametrize("group", [["data"], ["knowledge"], ["knowledge", "import"]])
def test_a_group_without_a_command_explains_itself(group, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.app(group)
    assert caught.value.code == 0
    shown = capsys.readouterr()
    assert "Commands" in shown.out
    assert "error" not in shown.err


def test_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch):
    seen = []
    monkeypatch.setattr("medgen.cli.app", lambda: seen.append(os.environ["GOMP_SPINCOUNT"]))
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    cli.main()
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    cli.main()
    assert seen == ["10000", "5"]

"""The reasoning without the drawing: one prompt, tables of prompts, and what breaks them."""

from __future__ import annotations

import csv
import json
import time
from importlib import resources
from pathlib import Path

import pytest
import yaml
from phantom import phantom_collaborators
from typer.testing import CliRunner

from medgen import cli
from medgen.console.plans import NO_CODE, show_plan
from medgen.errors import BadInput
from medgen.graphs.agent import Agent
from medgen.graphs.plan import Table, plan_line, plan_table
from medgen.records import Finding

KEYS = {"id", "modality", "findings", "regions", "signs", "measurements", "report", "cited",
        "not_drawable", "warnings", "decided_by"}  # fmt: skip
PROMPTS = [
    ("first", "cardiomegaly, chest X-ray"),
    ("empty", ""),
    ("third", "superior temporal hemorrhages, fundus"),
    ("unknown", "asdf qwer"),
    ("last", "glioma of the left frontal lobe, brain MRI"),
]


def write(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("key", "text")):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(
            [header, *rows]
        )
    return path


def command(*arguments: str):
    return CliRunner().invoke(cli.app, ["plan", *arguments])


def test_a_prompts_line_has_what_was_asked_and_cites_what_it_used():
    line = plan_line("RLL PNA, CXR", collaborators=phantom_collaborators())
    assert line.model_dump().keys() >= KEYS
    assert [finding.finding for finding in line.findings] == ["pneumonia"]
    assert line.cited and line.report is not None and line.error is None


def test_without_retrieval_nothing_is_cited_and_the_findings_are_the_same():
    minds = phantom_collaborators()
    with_facts = plan_line("RLL PNA, CXR", collaborators=minds)
    without = plan_line("RLL PNA, CXR", collaborators=minds, retrieve=False)
    assert without.cited == [] and without.findings == with_facts.findings


def test_the_agents_plan_is_the_lines(agent: Agent):
    plan = agent.plan("cardiomegaly, chest X-ray")
    line = plan_line("cardiomegaly, chest X-ray", collaborators=agent.collaborators)
    assert plan.model_dump() == line.model_dump(exclude={"id", "error"})


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_table_gives_a_line_a_row_in_order(tmp_path: Path, kind: str):
    path = tmp_path / f"prompts.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps({"key": k, "text": t}) for k, t in PROMPTS))
    else:
        write(path, PROMPTS)
    answer = command("--table", str(path), "--column", "text", "--id", "key")
    assert answer.exit_code == 0
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [line["id"] for line in lines] == [key for key, _ in PROMPTS]
    assert [bool(line["error"]) for line in lines] == [False, True, False, True, False]
    assert all(line.keys() >= KEYS for line in lines)
    assert "3 of 5 rows" in answer.stderr


def test_half_a_character_costs_its_row_alone_and_a_zero_is_a_name(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    rows = [
        {"key": 0, "text": "glioma, brain MRI"},
        {"key": "\ud800", "text": "cardiomegaly \udc00", "modality": "\ud800"},
        {"key": 2, "text": "drusen, fundus"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    done = command("--table", str(path), "--column", "text", "--id", "key")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and [line["id"] for line in lines] == ["0", "?", "2"]
    assert [bool(line["error"]) for line in lines] == [False, True, False]


def test_the_tables_own_modality_holds_where_none_is_given(tmp_path: Path):
    path = write(tmp_path / "t.csv", [("pneumonia", "Chest CT")], ("text", "modal"))
    table = Table(path, ("text",))
    assert [line.modality for line in plan_table(table)] == ["Chest CT"]
    assert [line.modality for line in plan_table(table, "Chest X-ray")] == ["Chest X-ray"]


def test_rows_come_as_they_are_read(tmp_path: Path):
    path = write(tmp_path / "t.csv", PROMPTS * 200)
    path.write_bytes(path.read_bytes() + b"x,\xff\xfe\n")
    lines = plan_table(Table(path, ("text",)))
    assert next(lines).findings
    with pytest.raises(BadInput, match="cannot be read"):
        list(lines)


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("missing.csv", None, ("--column", "text"), "no table"),
        ("t.xlsx", "text\nx", ("--column", "text"), "known kind"),
        ("t.csv", "text\nx", ("--column", "texts"), "no column 'texts'"),
        ("t.csv", "text\nx", ("--column", "text", "--id", "uid"), "no column 'uid'"),
        ("t.csv", "text\n", ("--column", "text"), "no rows"),
        ("t.csv", "text\nglioma", (), "--column"),
        ("t.csv", "text\nasdf\nqwer", ("--column", "text"), "no row of"),
        ("t.jsonl", '{"text": "glioma"}\n[1]\n', ("--column", "text"), "line 2"),
        ("t.jsonl", '{"text": "glioma"\n', ("--column", "text"), "cannot be read"),
        ("t.jsonl", "[" * 200_000, ("--column", "text"), "too deeply"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, name, content, options, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    answer = command("--table", str(tmp_path / name), *options)
    assert answer.exit_code == 2
    assert said in answer.stderr.splitlines()[-1] and answer.stderr.count("error: ") == 1


def test_a_prompt_or_a_table_and_not_both(tmp_path: Path):
    assert command().exit_code == 2
    assert command("glioma", "--table", str(tmp_path / "t.csv")).exit_code == 2
    assert command("glioma", "--column", "text").exit_code == 2


def test_a_thousand_rows_a_minute_with_a_wide_margin(tmp_path: Path):
    path = write(tmp_path / "t.csv", [PROMPTS[0], PROMPTS[2], PROMPTS[4]] * 67)
    lines = plan_table(Table(path, ("text",)))
    next(lines)
    started = time.process_time()
    assert sum(1 for _ in lines) == 200
    assert time.process_time() - started < 200 * 60 / 1000


def fifty_prompts() -> list[tuple[str, str | None]]:
    path = Path(__file__).parents[1] / "agents" / "data" / "plans.yaml"
    cases = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [(case["prompt"], case.get("given")) for case in cases[::4]]


def verified_codes() -> set[str]:
    table = resources.files("medgen.knowledge") / "base" / "facts" / "codes.csv"
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    return {row["code"] for row in rows}


def test_fifty_printed_plans_give_an_id_for_everything_or_say_that_none_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "400")
    codes, findings, regions, known = verified_codes(), 0, 0, 0
    prompts = fifty_prompts()
    assert len(prompts) == 50
    for prompt, modality in prompts:
        line = plan_line(prompt, modality, retrieve=False)
        named = [*line.findings, *line.regions]
        assert line.findings and line.regions, prompt
        assert {one.code for one in named if one.code} <= codes, prompt
        show_plan(line)
        printed = capsys.readouterr().out
        for one in named:
            name = one.finding if isinstance(one, Finding) else one.name
            shown = [text for text in printed.splitlines() if name in text]
            assert any((one.code or NO_CODE) in text for text in shown), (prompt, name)
        findings, regions = findings + len(line.findings), regions + len(line.regions)
        known += sum(one.code is not None for one in named)
    assert findings >= 50 and regions >= 50
    assert known > (findings + regions) / 2


def test_a_text_is_read_as_a_report_or_as_a_request_when_told_to():
    text = "Normal heart size. Cardiomegaly."
    options = ("-m", "chest x-ray", "--no-retrieve", "--json")
    refused = command(text, *options, "--request")
    assert refused.exit_code == 2 and "contradict" in refused.stderr
    read = command(text, *options, "--report")
    assert read.exit_code == 0
    shown = [finding["finding"] for finding in json.loads(read.stdout)["findings"]]
    assert "cardiomegaly" in shown and "normal heart size" not in shown

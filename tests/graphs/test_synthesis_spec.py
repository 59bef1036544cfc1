"""Specifications: what is wrong is said with its line, before anything is made."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from medgen.errors import BadInput
from medgen.graphs.synthesis_cells import Cell, draws_control, expand, task_seed
from medgen.graphs.synthesis_checks import check_cells, check_table
from medgen.graphs.synthesis_spec import Source, Spec, resolved, schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "reference" / "synthesis.schema.json"
CHEST = """\
seed: 7
images:
  - modality: Chest X-ray
    count: 24
    findings: [cardiomegaly]
    severity: [mild, severe]
    view: [PA, AP]
    age: [30, {from: 60, to: 70}]
    sex: [female, male]
    negatives: 0.25
"""
TWICE = CHEST.replace("24", "64") + CHEST.replace("24", "64").split("images:\n")[1]


def source(tmp_path: Path, text: str, name: str = "spec.yaml") -> Source:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Source(path)


def cells(tmp_path: Path, text: str) -> list[Cell]:
    return expand(source(tmp_path, text))


def test_counts_are_spread_over_all_combinations(tmp_path: Path) -> None:
    text = CHEST.replace("count: 24", "count: 64")
    found = cells(tmp_path, text)
    ill = [cell for cell in found if cell.findings == ("cardiomegaly",)]
    well = [cell for cell in found if cell.findings == ("normal chest",)]
    assert (len(ill), sum(cell.wanted for cell in ill)) == (16, 48)
    assert (len(well), sum(cell.wanted for cell in well)) == (8, 16)
    assert {cell.wanted for cell in ill} == {3}
    assert len({cell.id for cell in found}) == len(found)


def test_prompts_and_ids_follow_from_the_combination_alone(tmp_path: Path) -> None:
    text = CHEST.replace("count: 24", "each: 2").replace("    negatives: 0.25\n", "")
    one = {cell.id: cell for cell in cells(tmp_path, text)}
    turned = text.replace("[mild, severe]", "[severe, mild]").replace("[PA, AP]", "[AP, PA]")
    other = {cell.id: cell for cell in cells(tmp_path, turned)}
    assert one.keys() == other.keys()
    for name, cell in one.items():
        assert [cell.prompt(7, n) for n in range(4)] == [other[name].prompt(7, n) for n in range(4)]
    said = {cell.prompt(7, 0) for cell in one.values()}
    assert "mild cardiomegaly, PA Chest X-ray, 30-year-old female" in said
    ages = {cell.prompt(7, n) for cell in one.values() if cell.age == (60, 70) for n in range(50)}
    assert len(ages) > 2 * 2 * 2 * 5


def test_a_template_leaves_no_trace_of_what_was_not_asked(tmp_path: Path) -> None:
    text = CHEST.split("    severity")[0].replace("count", "each")
    assert cells(tmp_path, text)[0].prompt(0, 0) == "cardiomegaly, Chest X-ray"


def test_seeds_and_controls_depend_on_the_task_alone() -> None:
    seeds = {task_seed(7, f"task-{n}") for n in range(1000)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**63 for seed in seeds)
    assert task_seed(7, "task-1") != task_seed(8, "task-1")
    half = Spec(table="t.csv", control_share=0.5)
    drawn = sum(draws_control(half, f"task-{n}") for n in range(1000))
    assert 400 < drawn < 600
    assert all(draws_control(Spec(table="t.csv"), f"task-{n}") for n in range(100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CHEST.replace("view:", "veiw:"), r":7: images\.0\.veiw: unknown key"),
        (CHEST.replace("count: 24", "count: 24\n    count: 2"), r":5: 'count' was given on line 4"),
        (CHEST.replace("count: 24", "count: 1000000000"), r":2: asks for 1,000,000,000 images"),
        (CHEST.replace("count: 24", "count: 10"), r":3: 8 images cannot be spread over 16"),
        (CHEST.replace("count: 24", "each: 1\n    count: 3"), r":3: images\.0: give either"),
        (CHEST.replace("count: 24", "count: many"), r":4: images\.0\.count: .*valid integer"),
        (CHEST.replace("[cardiomegaly]", "[cardiomegalie]"), r":5: .*did you mean 'cardiomegaly'"),
        (CHEST.replace("Chest X-ray", "Ultraschall"), r":3: unknown modality 'Ultraschall'"),
        (CHEST.replace("to: 70", "to: 7"), r":8: images\.0\.age\.1: 'from' comes before 'to'"),
        (TWICE, r":11: line 3 asks for normal chest PA .* line 11"),
        (CHEST.replace("24", "160000") + "diversity: {pool: 2}\n", r":3: 5,000 images of one"),
        (CHEST + 'templates: ["{organ}"]\n', r":11: unknown template field 'organ'"),
        (CHEST + 'templates: ["{finding"]\n', r":11: template '\{finding'"),
        (CHEST + "budget: {rounds: 0}\n", r":11: budget\.rounds: .*greater than or equal to 1"),
        (CHEST + "table: prompts.csv\n", r"give either 'images' .* or 'table'"),
        ("images: [\n", r":2: no YAML"),
        ("- just a list\n", r":1: no specification"),
        ("", r":1: no specification"),
        ("!!python/object/apply:os.system ['true']\n", r"no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        cells(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[mild, severe]", "[mild]\n    side: [left]"), "cardiomegaly has no side here"),
        (("[cardiomegaly]", "[pacemaker]"), ":5: nothing measures pacemaker in Chest X-ray"),
        (("seed: 7", 'templates: ["Kardiomegalie"]'), ":5: 'Kardiomegalie': "),
        (("seed: 7", 'templates: ["pneumonia, {view}"]'), "is read as pneumonia, not cardiomegaly"),
        (("seed: 7", 'templates: ["{finding} {view} {sex}"]'), "severity 'mild' is not read"),
    ],
)
def test_a_wording_read_as_something_else_is_refused(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = CHEST.replace("count: 24", "each: 1").replace("    negatives: 0.25\n", "")
    given = source(tmp_path, text.replace(*change))
    with pytest.raises(BadInput, match=message):
        check_cells(
            given, expand(given), lambda _modality, finding, _group=None: finding != "pacemaker"
        )


def test_what_nothing_measures_is_kept_only_where_the_specification_says_so(
    tmp_path: Path,
) -> None:
    text = CHEST.replace("count: 24", "each: 2") + "thresholds: {unmeasured: keep}\n"
    given = source(tmp_path, text)
    checked = check_cells(given, expand(given), lambda *_names: False)
    assert any("kept unverified" in warning for warning in checked.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,prompt\na,cardiomegaly chest X-ray\na,glioma\n", ":3: id 'a' was given on line 2"),
        ("id,prompt\n../a,glioma\n", ":2: id '../a' is no file name"),
        ("id,prompt,colour\na,glioma,red\n", ":1: unknown column 'colour'"),
        ("id,text\na,glioma\n", ":1: unknown column 'text'"),
        ("id,prompt\na,\n", ":2: id 'a': the prompt is empty"),
        ("id,prompt\na,cardiomegaly, chest X-ray\n", ":2: another number of cells"),
        ("id,prompt\na,心臓肥大\n", ":2: id 'a': nothing understood"),
        ("id,prompt\na,Herzvergrößerung im Röntgenbild\n", ":2: id 'a': nothing understood"),
        ("id,prompt\n", ":1: no prompts"),
    ],
)
def test_a_table_says_which_row_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    given = source(tmp_path, text, "prompts.csv")
    assert given.table is not None
    with pytest.raises(BadInput, match=message):
        check_table(given, given.table, lambda *_names: True)


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    for name in ("spec.yaml", "prompts.csv"):
        (tmp_path / name).write_bytes(b"id,prompt\n\xff\xfe\x00,x\n")
        with pytest.raises(BadInput, match=r"cannot be read|no YAML"):
            given = Source(tmp_path / name)
            check_table(given, given.table or tmp_path, lambda *_names: True)


def test_the_resolved_specification_is_one_again(tmp_path: Path) -> None:
    first = source(tmp_path, CHEST)
    again = source(tmp_path, resolved(first.spec), "again.yaml")
    assert again.spec == first.spec and again.sha256 == first.sha256
    assert Source(tmp_path / "spec.yaml", seed=8).sha256 != first.sha256


def test_the_published_schema_is_the_current_one() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert published == schema(), "medgen synthesize --schema > docs/reference/..."
    jsonschema.validate(yaml.safe_load(CHEST), published)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(CHEST), "imgaes": []}, published)

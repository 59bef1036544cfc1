"""An evaluation as a user has it: tables in, a report's folder out, and nothing done twice."""

import json

import numpy as np
import pytest
from PIL import Image

from medgen.cli import app
from medgen.errors import BadInput
from medgen.evaluation.report import summarise
from medgen.graphs.evaluate import evaluate

SIZE = 64


def film(generator, heart):
    """A crude chest film: two dark lungs and a bright heart, each a little different."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    shift = generator.normal(0, 0.02, 2)
    pixels = np.full((SIZE, SIZE), 0.7)
    for centre in (0.28, 0.72):
        inside = ((x - centre - shift[0]) / 0.17) ** 2 + ((y - 0.5 - shift[1]) / 0.36) ** 2 < 1
        pixels[inside] = 0.2
    pixels[((x - 0.55) / heart) ** 2 + ((y - 0.62) / 0.2) ** 2 < 1] = 0.8
    pixels += generator.normal(0, 0.04, pixels.shape)
    return (pixels.clip(0, 1) * 255).astype(np.uint8)


def table(folder, name, count, seed, text, label):
    generator = np.random.default_rng(seed)
    (folder / name).mkdir()
    lines = ["path,text,modal,label,group"]
    for index in range(count):
        Image.fromarray(film(generator, 0.16 + 0.08 * (index % 2))).save(
            folder / name / f"{index}.png"
        )
        which = index % 2
        lines.append(f"{name}/{index}.png,{text[which]},Chest X-ray,{label[which]},{name}{index}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    label = ("normal", "bacterial pneumonia")
    real = ("Normal chest X-ray of a child.", "Chest X-ray of a child with bacterial pneumonia.")
    asked = ("normal chest, chest X-ray of a child", "bacterial pneumonia, pediatric film")
    return {
        "real": table(folder, "real", 128, 1, real, label),
        "synthetic": table(folder, "synthetic", 64, 2, asked, label),
        "train": table(folder, "train", 64, 3, real, label),
    }


@pytest.fixture(scope="module")
def finished(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    evaluation, folder = evaluate(
        tables["real"],
        tables["synthetic"],
        tables["train"],
        suites=("fidelity", "diversity", "alignment", "privacy"),
        out=folder,
        size=176,  # the least that MS-SSIM's five scales take
        seed=5,
        command="medgen evaluate",
    )
    return evaluation, folder


def test_every_suite_says_something_with_its_scorer_and_counts(finished):
    evaluation, _ = finished
    for suite in evaluation.suites:
        figures = evaluation.outcomes[suite].figures
        assert any(figure.value is not None for figure in figures), suite
        for figure in figures:
            assert figure.scorer
            assert figure.value is not None or figure.note
            if figure.low is not None and figure.value is not None:
                assert figure.low <= figure.value <= figure.high


def test_the_same_kind_of_films_is_within_reach_of_the_floor(finished):
    evaluation, _ = finished
    kid = next(
        figure
        for figure in evaluation.outcomes["fidelity"].figures
        if figure.metric.startswith("KID") and figure.scope == "Chest X-ray"
    )
    assert kid.low <= (kid.floor_high or kid.floor) and kid.value < 0.2


def test_the_report_is_whole_and_its_pictures_are_there(finished):
    evaluation, folder = finished
    assert json.loads((folder / "metrics.json").read_text()) == evaluation.model_dump(mode="json")
    page = (folder / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")  # loads nothing
    assert "Not for diagnosis" in page
    text = (folder / "report.md").read_text()
    for suite in ("Fidelity", "Diversity", "Alignment", "Privacy"):
        assert f"## {suite}" in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (folder / line.split("](")[1].rstrip(")")).is_file()


def test_the_summary_has_no_line_that_nothing_was_measured_for(finished):
    assert [scope for scope, _ in summarise(finished[0]).rows] == ["Chest X-ray"]


def test_a_finished_suite_is_not_run_again_unless_its_inputs_change(finished, tables):
    evaluation, folder = finished
    again, _ = evaluate(
        tables["real"],
        tables["synthetic"],
        tables["train"],
        suites=("fidelity", "privacy"),
        out=folder,
        size=176,  # the least that MS-SSIM's five scales take
        seed=5,
    )
    assert again.outcomes["fidelity"] == evaluation.outcomes["fidelity"]
    assert len(list((folder / "suites").glob("fidelity-*.json"))) == 1
    assert again.seconds["fidelity"] < max(1.0, evaluation.seconds["fidelity"] / 4)


def test_an_image_cannot_be_real_and_synthetic(tables):
    with pytest.raises(BadInput, match="in the real and in the synthetic table"):
        evaluate(tables["real"], tables["real"])


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--suite", "fidelity,beauty"], "beauty"),
        (["--size", "7"], "--size 7"),
        (["--extractor", "no/such/folder"], "no/such/folder"),
        (["--train", "gone.csv"], "no table at gone.csv"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(tables, tmp_path, capsys, more, line):
    with pytest.raises(SystemExit) as caught:
        app(
            [
                "evaluate",
                "--real",
                str(tables["real"]),
                "--synthetic",
                str(tables["synthetic"]),
                "--out",
                str(tmp_path / "out"),
                *more,
            ]
        )
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and line in error[-1]


def small(folder, name, modal, count=2, side=SIZE, group=""):
    lines = ["path,text,modal" + (",group" if group else "")]
    generator = np.random.default_rng(count)
    for index in range(count):
        pixels = generator.integers(0, 255, (side, side), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{index}.png")
        lines.append(f"{name}{index}.png,words,{modal}" + (f",{group}" if group else ""))
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_modality_without_real_images_is_counted_and_said(tmp_path):
    real = small(tmp_path, "real", "OCT")
    synthetic = small(tmp_path, "synthetic", "Ultrasound", 3)
    evaluation, folder = evaluate(
        real, synthetic, suites=["fidelity"], extractors=["medgen", "medgen"], out=tmp_path / "out"
    )
    assert any("no real images of Ultrasound" in line for line in evaluation.warnings)
    assert not any("finding" in line for line in evaluation.warnings)  # alignment did not run
    assert len(evaluation.extractors) == 1
    report = (folder / "report.md").read_text()
    assert "| synthetic | 0 | 3 |" in report
    assert "<th>Ultrasound</th>" in (folder / "report.html").read_text()


def test_real_images_of_training_patients_are_told_of_whatever_suite_runs(tmp_path):
    real = small(tmp_path, "real", "OCT", group="patient 1")
    train = small(tmp_path, "train", "OCT", group="patient 1")
    synthetic = small(tmp_path, "synthetic", "OCT", 3)
    evaluation, _ = evaluate(real, synthetic, train, suites=["fidelity"], out=tmp_path / "out")
    assert any("2 of 2 real images are of groups" in line for line in evaluation.warnings)


def test_images_that_no_reader_takes_are_refused_before_the_work(tmp_path):
    real, synthetic = (small(tmp_path, name, "OCT", side=16) for name in ("real", "synthetic"))
    with pytest.raises(BadInput, match=r"16 pixels a side.*--size"):
        evaluate(real, synthetic, out=tmp_path / "out")


def test_drawings_of_one_prompt_are_one_group_where_the_table_gives_none(tables, tmp_path):
    lines = tables["synthetic"].read_text().splitlines()
    bare = tables["synthetic"].with_name("bare.csv")
    bare.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines) + "\n")
    evaluation, _ = evaluate(tables["real"], bare, suites=("fidelity",), out=tmp_path, size=64)
    assert [one.groups for one in evaluation.tables] == [128, 2]

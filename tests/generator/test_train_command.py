"""`medgen train`: a configuration in, a generator's folder out, mistakes in one line."""

import pytest
import yaml

from medgen.cli import app


def _run(*arguments):
    with pytest.raises(SystemExit) as ended:
        app(["train", *arguments])
    return ended.value.code


@pytest.fixture
def config_file(configure, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configure(steps=4).model_dump(mode="json")))
    return path


def test_it_trains_tells_and_prints_the_folder(config_file, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    assert _run(str(config_file), "--out", str(out), "--set", "steps=2") == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(out / "generator")
    assert "step 2 of 2" in told.err
    assert "held-out loss" in told.err
    assert (out / "generator" / "generator.json").is_file()


def test_mistakes_are_one_line_and_exit_2(config_file, capsys):
    assert _run(str(config_file), "--set", "unet.gates=1") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "unet.gates: unknown key" in error
    assert error.count("\n") == 1

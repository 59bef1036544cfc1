"""A folder takes another's place when it is whole, and not before."""

import pytest

from medgen.errors import MedgenError
from medgen.generator.checkpoints import writing_folder


def _fill(folder, word):
    with writing_folder(folder) as new:
        (new / "weights").write_text(word)


def test_the_folder_that_was_there_stays_until_the_new_one_is_whole(tmp_path):
    folder = tmp_path / "generator"
    _fill(folder, "first")
    with (
        pytest.raises(MedgenError, match="what was written before is kept"),
        writing_folder(folder) as new,
    ):
        (new / "weights").write_text("half")
        raise OSError("no space")
    assert (folder / "weights").read_text() == "first"
    _fill(folder, "second")
    assert (folder / "weights").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["generator"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    folder = tmp_path / "generator"
    _fill(folder, "first")
    folder.rename(tmp_path / ".generator.old")
    with pytest.raises(MedgenError), writing_folder(folder):
        raise OSError("no space")
    assert (folder / "weights").read_text() == "first"

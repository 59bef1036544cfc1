"""A new folder is whole or not there."""

import errno

import pytest

from medgen.data.folders import new_folder
from medgen.errors import BadInput, MedgenError


def test_a_folder_has_its_name_when_it_is_whole(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "a"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), BadInput("x")])
def test_nothing_is_left_of_one_that_was_interrupted(tmp_path, error):
    with pytest.raises(type(error)), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leftovers_of_a_kill_are_removed(tmp_path):
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / "old").write_text("half")
    with pytest.raises(MedgenError, match="disk is full"), new_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_replaced(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BadInput, match="there already"), new_folder(tmp_path / "out"):
        pass
    with pytest.raises(BadInput, match="is no folder"), new_folder(tmp_path / "out" / "in"):
        pass
    assert (tmp_path / "out").read_text() == "mine"

"""Where a dataset's files lie: a local folder, or any place that fsspec can write (s3://...).

Files are written whole or not at all: locally under a temporary name that is renamed, remotely by
one request. All names are POSIX and relative to the dataset. Knows files; not what is in them.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medgen.data.dataset_layout import shard
from medgen.data.images import write_atomic
from medgen.errors import BadInput, MedgenError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WORK = ".work"


def work_name(task: str, attempt: int) -> str:
    """Where a candidate lies until its task is settled."""
    return f"{WORK}/{shard(task)}/{task}_{attempt}.png"


def is_remote(out: str) -> bool:
    """Whether a place is a URL rather than a folder."""
    return "://" in out and not out.startswith("file://")


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room."""
    return isinstance(error, OSError) and error.errno in FULL


class Store:
    """The files of one dataset in a local folder.

    Args:
        out: The folder.
    """

    def __init__(self, out: str) -> None:
        self.out = out
        self.folder = Path(out.removeprefix("file://")).expanduser().resolve()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole.

        Raises:
            OSError: It cannot be written.
        """
        write_atomic(self.folder / name, content)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: There is none.
        """
        return (self.folder / name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.folder / name).is_file()

    def move(self, name: str, target: str) -> None:
        """Rename a file; one that was moved before is left where it is.

        Raises:
            MedgenError: It is in neither place.
        """
        goal = self.folder / target
        goal.parent.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / name).replace(goal)
        except FileNotFoundError as error:
            if not goal.is_file():
                raise MedgenError(f"{self.out} lost {name}: run `medgen dataset verify`") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def scratch(self) -> Path:
        """A local folder for what is needed only while tasks are unsettled."""
        return self.folder / WORK / "tasks"

    def names(self, folder: str) -> Iterator[str]:
        """Every file under a folder of the dataset, in order."""
        root = self.folder / folder
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if path.is_file():
                yield path.relative_to(self.folder).as_posix()

    def clear_work(self) -> None:
        """Remove what was only needed while tasks were unsettled."""
        shutil.rmtree(self.folder / WORK, ignore_errors=True)


class RemoteStore(Store):
    """The files of one dataset at a URL that fsspec writes, such as s3://bucket/prefix.

    Args:
        out: The URL.

    Raises:
        BadInput: fsspec, or what it needs for this kind of URL, is not installed.
    """

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(self.out)
        except (ImportError, ValueError) as error:
            raise BadInput(
                f'cannot write to {out} ({error}): pip install "medgen[remote]"'
            ) from error
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """See `Store.write`."""
        self._files.pipe_file(self._at(name), content)

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        content: Any = self._files.cat_file(self._at(name))
        return bytes(content)

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return bool(self._files.exists(self._at(name)))

    def move(self, name: str, target: str) -> None:
        """See `Store.move`."""
        try:
            self._files.copy(self._at(name), self._at(target))
        except FileNotFoundError as error:
            if not self.exists(target):
                raise MedgenError(f"{self.out} lost {name}: run `medgen dataset verify`") from error
            return
        self.remove(name)

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        try:
            self._files.rm_file(self._at(name))
        except FileNotFoundError:
            return

    def scratch(self) -> Path:
        """See `Store.scratch`."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="medgen-")
        return Path(self._scratch.name)

    def names(self, folder: str) -> Iterator[str]:
        """See `Store.names`."""
        self._files.invalidate_cache()
        for path in sorted(self._files.find(self._at(folder))):
            yield path.removeprefix(f"{self._root}/")

    def clear_work(self) -> None:
        """See `Store.clear_work`."""
        for name in list(self.names(WORK)):
            self.remove(name)


def open_store(out: str) -> Store:
    """The store for a folder or a URL."""
    return RemoteStore(out) if is_remote(out) else Store(out)

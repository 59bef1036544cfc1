"""Runs as the clients of a server see them: addresses in place of paths, jobs beside what is done.

No path of the server's machine leaves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from medgen.errors import BadInput
from medgen.graphs.results import load
from medgen.graphs.run_folder import CANDIDATES, REQUEST, TRACE_LINES, TRACE_PAGE
from medgen.graphs.runs import Trace, load_run, summarize
from medgen.serve.jobs import Jobs, read_mark
from medgen.serve.schemas import IMAGE_NAME, RUN_ID, RunList, RunView


class NotThere(BadInput):
    """There is no such run or image."""


def image_address(run_id: str, name: str) -> str:
    """Where an image of a run is fetched."""
    return f"/runs/{run_id}/images/{name}"


def image_file(folder: Path, name: str) -> Path:
    """The file of an image of a run, result or candidate.

    Raises:
        NotThere: There is none.
    """
    if re.fullmatch(IMAGE_NAME, name):
        for place in (folder / name, folder / CANDIDATES / name):
            if place.is_file() and place.resolve().is_relative_to(folder.resolve()):
                return place
    raise NotThere(f"no image {name!r} in this run")


class Runs:
    """The runs of a server as its clients see them: those on disk, and how those on their way are.

    Args:
        jobs: The queue; runs made by others lie in the same folder.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def folder(self, run_id: str) -> Path:
        """A run's folder.

        Raises:
            NotThere: There is none.
        """
        place = self._jobs.runs / run_id
        if not (re.fullmatch(RUN_ID, run_id) and (place / REQUEST).is_file()):
            raise NotThere(f"no run {run_id!r}: GET /runs lists those that are there")
        return place

    def page(self, limit: int, before: str | None) -> RunList:
        """Runs, newest first, those whose id sorts before `before`."""
        names = sorted(self._names(), reverse=True)
        older = [name for name in names if before is None or name < before]
        shown = [self.view(name) for name in older[:limit]]
        return RunList(runs=shown, before=shown[-1].run_id if len(older) > limit else None)

    def _names(self) -> Iterator[str]:
        for place in self._jobs.runs.iterdir():
            if re.fullmatch(RUN_ID, place.name) and (place / REQUEST).is_file():
                yield place.name

    def view(self, run_id: str, whole: bool = False) -> RunView:
        """How a run stands.

        Args:
            run_id: Which.
            whole: With its result.

        Raises:
            NotThere: There is none.
        """
        folder = self.folder(run_id)
        job = self._jobs.active.get(run_id)
        if job is not None and job.ended:
            job = None
        mark = None if job else read_mark(folder)
        summary = summarize(folder)
        status: str = summary.status
        if job is not None:
            status = job.status
        elif mark is not None and status == "unfinished" and mark.status in ("cancelled", "failed"):
            status = mark.status
        result = None
        if whole and status == "finished":
            result = self.addressed(load(folder).model_dump(mode="json"), run_id)
        return RunView.model_validate(
            {
                **self.addressed(summary.model_dump(mode="json"), run_id),
                "run_id": run_id,
                "status": status,
                "folder": run_id,
                "ahead": self._jobs.ahead(job) if job else None,
                "node": job.node if job else None,
                "error": self.addressed(mark.error, run_id) if mark else None,
                "result": result,
            }
        )

    def trace(self, run_id: str) -> Trace:
        """All that a run holds so far.

        Raises:
            BadInput: There is no such run (`NotThere`), or nothing of it yet.
        """
        trace = load_run(self.folder(run_id))
        trace.setup.settings = told_settings(trace.setup.settings)
        return Trace.model_validate(self.addressed(trace.model_dump(mode="json"), run_id))

    def trace_page(self, run_id: str) -> str:
        """A finished run's page, with the run's id in place of the path to its folder.

        Raises:
            NotThere: There is no such run, or it is not finished.
        """
        folder = self.folder(run_id)
        page = folder / TRACE_PAGE
        if not page.is_file():
            raise NotThere(f"run {run_id} has no page yet: it is not finished")
        text = page.read_text(encoding="utf-8").replace(escape(str(folder), quote=False), run_id)
        for value in load_run(folder).setup.settings.values():
            if isinstance(value, str):
                text = text.replace(
                    escape(value, quote=False), escape(told_setting(value), quote=False)
                )
        return text

    def addressed(self, value: Any, run_id: str) -> Any:
        """Plain data of a run with addresses in place of paths."""
        return addressed(value, str(self._jobs.runs / run_id), run_id)


def told_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in which folders, such as those of weights, are their last names alone."""
    return {name: told_setting(value) for name, value in settings.items()}


def told_setting(value: Any) -> Any:
    """One of them."""
    return re.sub(r"(^|:)/.*/", r"\1", value) if isinstance(value, str) else value


def addressed(value: Any, folder: str, run_id: str) -> Any:
    """Plain data in which paths into a run's folder are addresses, or names where there is none."""
    if isinstance(value, dict):
        return {key: addressed(one, folder, run_id) for key, one in value.items()}
    if isinstance(value, list):
        return [addressed(one, folder, run_id) for one in value]
    if not isinstance(value, str) or not value.startswith(f"{folder}/"):
        return value.replace(folder, run_id) if isinstance(value, str) else value
    name = value.removeprefix(f"{folder}/")
    if name == TRACE_LINES:
        return f"/runs/{run_id}/trace"
    return image_address(run_id, Path(name).name) if name.endswith(".png") else name

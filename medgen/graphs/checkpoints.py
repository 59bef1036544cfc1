"""The checkpoints of a run, read without touching them: the newest state, or all of its history.

They are copied into memory first, and revived as plain data and nothing else, for a run's folder
may come from somebody else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from medgen.agents.state import AgentState
from medgen.errors import BadInput
from medgen.graphs.run_folder import RunFolder

PLAIN = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Revives plain data alone: a file of checkpoints cannot name code to be run."""


def thread_of(run: RunFolder) -> Any:
    """LangGraph's name for a run's thread."""
    return {"configurable": {"thread_id": run.run_id, "checkpoint_ns": ""}}


def read_state(folder: RunFolder) -> AgentState:
    """The newest state of a run, its paths leading to where the folder is now.

    Raises:
        BadInput: The checkpoints are missing or damaged.
    """
    with opened_copy(folder) as connection:
        found = SqliteSaver(connection, serde=PLAIN).get_tuple(thread_of(folder))
    state = found.checkpoint["channel_values"] if found else {}
    return moved(cast("AgentState", state), folder.path)


@contextmanager
def opened_copy(folder: RunFolder) -> Iterator[sqlite3.Connection]:
    """A run's checkpoints copied into memory, so that reading them leaves the folder as it is.

    Raises:
        BadInput: They are missing or damaged.
    """
    place = folder.checkpoints
    if not place.is_file():
        raise BadInput(f"{folder.path} has no {place.name}: start the run anew")
    # A write-ahead log lies there only while the run goes on, or after a kill; where there is none,
    # SQLite is told so, or it would leave files of its own.
    still = not place.with_name(f"{place.name}-wal").exists()
    uri = f"{place.as_uri()}?mode=ro{'&immutable=1' if still else ''}"
    try:
        with (
            closing(sqlite3.connect(":memory:", check_same_thread=False)) as copy,
            closing(sqlite3.connect(uri, uri=True)) as stored,
        ):
            stored.backup(copy)
            yield copy
    except sqlite3.Error as error:
        raise BadInput(
            f"the checkpoints of run {folder.run_id} cannot be read ({error}): start it anew"
        ) from error


def moved(state: AgentState, folder: Path) -> AgentState:
    """A state whose paths lead into `folder`, where they led into the run's folder before."""
    before = state.get("folder")
    if before is None or before == str(folder):
        return state

    def path(value: str | None) -> str | None:
        if value is None or not Path(value).is_relative_to(before):
            return value
        return str(folder / Path(value).relative_to(before))

    candidates = []
    for dumped in state.get("candidates", []):
        told = dumped["conditioning"]
        images = {name: path(told.get(name)) for name in ("init_image", "mask_image")}
        conditioning = {**told, **images}
        candidates.append({**dumped, "image": path(dumped["image"]), "conditioning": conditioning})
    return {**state, "folder": str(folder), "candidates": candidates}

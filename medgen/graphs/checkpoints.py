"""The checkpoints of a run: a file in its folder, or a PostgreSQL database (`MEDGEN_CHECKPOINTS`).

Those of a folder are read without touching them, from a copy in memory, and all are revived as
plain data and nothing else, for a run's folder may come from somebody else. A run that was begun
with a file keeps it whatever the settings say.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from medgen.agents.state import AgentState
from medgen.errors import BadInput, MedgenError
from medgen.graphs.run_folder import RunFolder
from medgen.settings import settings

PLAIN = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Revives plain data alone: a file of checkpoints cannot name code to be run."""


MIGRATION_LOCK = 7_203_332  # any number; one process at a time makes the tables
PATIENCE = 10  # seconds that the server may take to answer
Saver = BaseCheckpointSaver[Any]


def thread_of(run: RunFolder) -> Any:
    """LangGraph's name for a run's thread."""
    return {"configurable": {"thread_id": run.run_id, "checkpoint_ns": ""}}


def read_state(folder: RunFolder) -> AgentState:
    """The newest state of a run, its paths leading to where the folder is now.

    Raises:
        BadInput: The checkpoints are missing or damaged.
    """
    with reading(folder) as saver:
        found = saver.get_tuple(thread_of(folder))
    state = found.checkpoint["channel_values"] if found else {}
    return moved(cast("AgentState", state), folder.path)


@contextmanager
def writing(folder: RunFolder) -> Iterator[Saver]:
    """Where a run's checkpoints are kept, to go on with it.

    Raises:
        BadInput: The `postgres` extra is not installed.
        MedgenError: The database cannot be reached.
    """
    url = settings().checkpoints
    if url is not None and not folder.checkpoints.is_file():
        with _postgres(url) as saver:
            yield saver
        return
    with closing(sqlite3.connect(folder.checkpoints, check_same_thread=False)) as connection:
        yield SqliteSaver(connection, serde=PLAIN)


@contextmanager
def reading(folder: RunFolder) -> Iterator[Saver]:
    """A run's checkpoints, to be read.

    Raises:
        BadInput: They are missing or damaged.
        MedgenError: The database cannot be reached.
    """
    url = settings().checkpoints
    if url is not None and not folder.checkpoints.is_file():
        with _postgres(url) as saver:
            yield saver
        return
    with opened_copy(folder) as connection:
        yield SqliteSaver(connection, serde=PLAIN)


def forget(folder: RunFolder) -> None:
    """Remove a run's checkpoints from the database, if that is where they are."""
    url = settings().checkpoints
    if url is not None and not folder.checkpoints.is_file():
        with _postgres(url) as saver:
            saver.delete_thread(folder.run_id)


@contextmanager
def _postgres(url: str) -> Iterator[Saver]:
    name = re.sub("//.*@", "//", url).split("?")[0]  # no password
    try:
        import psycopg
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg.rows import dict_row
    except ImportError as error:
        raise BadInput(
            f'checkpoints in {name} need psycopg: pip install "medgen[postgres]"'
        ) from error
    try:
        with psycopg.connect(
            url,
            autocommit=True,
            prepare_threshold=0,
            row_factory=dict_row,
            connect_timeout=PATIENCE,
        ) as connection:
            saver = PostgresSaver(connection, serde=PLAIN)
            _make_tables(saver, connection)
            yield saver
    except psycopg.Error as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MedgenError(
            f"checkpoints in {name} cannot be used ({reason}): check MEDGEN_CHECKPOINTS"
        ) from error


def _make_tables(saver: Any, connection: Any) -> None:
    """Make the tables, if they are not there, while no other process does."""
    # Tried, not waited for: a waiting statement would hold up an index that is being built.
    patience = time.monotonic() + PATIENCE
    locked = False
    while not locked and time.monotonic() < patience:
        asked = connection.execute("SELECT pg_try_advisory_lock(%s) AS taken", (MIGRATION_LOCK,))
        locked = bool(asked.fetchone()["taken"])
        if not locked:
            time.sleep(0.1)
    try:
        saver.setup()
    finally:
        if locked:
            connection.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))


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

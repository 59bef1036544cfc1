"""The feedback log: what runs drew, what was said of it and by whom; only ever added to.

The rooms above write and read it through `FeedbackLog`; nobody else speaks SQL.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from medgen.errors import BadInput
from medgen.feedback.database import Database, Row, Values
from medgen.feedback.records import (
    Agreement,
    Label,
    LoggedCandidate,
    LoggedRun,
    LogStats,
    Pair,
    Rating,
    RealOrSynthetic,
    Source,
    new_id,
    now,
)
from medgen.feedback.schema import CURRENT_LABELS, LABELLED_IMAGES, QUEUE
from medgen.records import Record
from medgen.settings import settings

OFF = "off"
WAIT = 5.0  # seconds that a writer waits for others
KINDS: dict[type[Label], str] = {Rating: "rating", Pair: "pair", RealOrSynthetic: "guess"}
AnyLabel = TypeVar("AnyLabel", bound=Label)
AnyRecord = TypeVar("AnyRecord", bound=Record)


class LabelledRow(NamedTuple):
    """A labelled candidate as the log keeps it; `record` is its `LoggedCandidate` as JSON, unread.

    Reading a record takes longer than fetching it, and a query needs few of them.
    """

    run: str
    candidate: str
    image_sha256: str
    prompt: str
    modality: str
    record: str


def configured_log(timeout: float = WAIT) -> FeedbackLog | None:
    """The log that `MEDGEN_FEEDBACK` names; None when that is 'off'."""
    named = settings().feedback
    return None if named == OFF else FeedbackLog(named, timeout)


class FeedbackLog:
    """A log, opened when first used. Threads and processes may share it.

    Args:
        where: A file for SQLite or a `postgresql://` URL; `MEDGEN_FEEDBACK` when None.
        timeout: Seconds to wait while another writer holds it.

    Raises:
        BadInput: `where` is None and the setting is 'off', or names no kind of log; every method:
            the log is damaged, foreign or of a newer medgen.
        MedgenError: Every method: the log is locked, full or out of reach.
    """

    def __init__(self, where: str | Path | None = None, timeout: float = WAIT) -> None:
        named = settings().feedback if where is None else str(where)
        if named == OFF:
            raise BadInput("the feedback log is off (MEDGEN_FEEDBACK=off): name one with --log")
        self._database = _database(named, timeout)

    @classmethod
    def existing(cls, where: str | Path | None = None) -> FeedbackLog:
        """A log that is there already, for those who only read: a mistyped name makes no new one.

        Raises:
            BadInput: There is no such file.
        """
        log = cls(where)
        if not log._database.exists():
            raise BadInput(
                f"no feedback log at {log.name}: runs begin one, and so does medgen feedback import"
            )
        return log

    @property
    def name(self) -> str:
        """The file's absolute path, or the URL without its password."""
        return self._database.name

    def append_run(self, run: LoggedRun) -> int:
        """Add a run that ended, with its candidates, at once.

        A run that the log has already changes nothing, so that a resumed run may say it again.

        Returns:
            How many rows were new.
        """
        bare = run.model_copy(update={"candidates": []})
        return self.append_records([bare, *run.candidates], durable=False)

    def append_candidate(self, candidate: LoggedCandidate) -> int:
        """Add one candidate of a run; returns 0 when the log has it already."""
        return self.append_records([candidate], durable=False)

    def append_rating(self, rating: Rating) -> int:
        """Add a rating, safe on the disk on return; returns 0 when the log has its id already."""
        return self.append_labels([rating])

    def append_pair(self, pair: Pair) -> int:
        """Add a choice between two images, safe on the disk on return."""
        return self.append_labels([pair])

    def append_guess(self, guess: RealOrSynthetic) -> int:
        """Add a guess whether an image is real, safe on the disk on return."""
        return self.append_labels([guess])

    def append_labels(self, labels: Iterable[Label]) -> int:
        """Add labels of any kind, all or none; returns how many the log did not have."""
        return self.append_records(labels)

    def append_records(self, records: Iterable[Record], durable: bool = True) -> int:
        """Add records of any kind, all or none; a run's own list of candidates is left aside.

        Args:
            records: Runs, candidates and labels.
            durable: Wait until the disk has them; otherwise they outlive a kill of this process,
                but the last ones perhaps not a loss of power.

        Returns:
            How many the log did not have.
        """
        return self._database.append([_row(record) for record in records], durable)

    def withdraw(self, label: AnyLabel) -> AnyLabel:
        """Take a rater's label back by a newer one, and return that; the old row stays."""
        newer = label.model_copy(update={"id": new_id(), "created": now(), "withdrawn": True})
        self.append_labels([newer])
        return newer

    def ratings(
        self,
        *,
        source: Source | None = None,
        rater: str | None = None,
        modality: str | None = None,
        history: bool = False,
    ) -> list[Rating]:
        """Ratings in the order added.

        Args:
            source: Only those of people, of the verifier, or simulated ones.
            rater: Only those of one rater.
            modality: Only those of one modality card's name.
            history: Also those that were replaced or withdrawn.
        """
        return self._labels(Rating, history, source=source, rater=rater, modality=modality)

    def pairs(
        self,
        *,
        source: Source | None = None,
        rater: str | None = None,
        modality: str | None = None,
        history: bool = False,
    ) -> list[Pair]:
        """Choices between two images, in the order added; arguments as for `ratings`."""
        return self._labels(Pair, history, source=source, rater=rater, modality=modality)

    def guesses(
        self,
        *,
        source: Source | None = None,
        rater: str | None = None,
        modality: str | None = None,
        history: bool = False,
    ) -> list[RealOrSynthetic]:
        """Guesses whether images are real, in the order added; arguments as for `ratings`."""
        return self._labels(RealOrSynthetic, history, source=source, rater=rater, modality=modality)

    def candidates(
        self, *, run: str | None = None, modality: str | None = None, rated: bool = False
    ) -> list[LoggedCandidate]:
        """Candidates in the order added.

        Args:
            run: Only those of one run.
            modality: Only those of one modality card's name.
            rated: Only those whose image has a rating or was one of a pair.
        """
        where, values = _where(run=run, modality=modality)
        if rated:
            where += f" {'AND' if where else 'WHERE'} image_sha256 IN ({LABELLED_IMAGES})"
        return self._read(
            LoggedCandidate, f"SELECT record FROM candidates{where} ORDER BY seq", values
        )

    def labelled(self) -> list[LabelledRow]:
        """Candidates whose image has a rating or was one of a pair, in the order added, unread."""
        columns = ", ".join(LabelledRow._fields)
        sql = f"SELECT {columns} FROM candidates WHERE image_sha256 IN ({LABELLED_IMAGES})"
        with _collector_at_rest():
            return [LabelledRow(*row) for row in self._database.select(f"{sql} ORDER BY seq")]

    def runs(self) -> list[LoggedRun]:
        """Runs in the order added, their plans in them, their candidates not."""
        return self._read(LoggedRun, "SELECT record FROM runs ORDER BY seq")

    def queue(
        self,
        rater: str,
        *,
        modality: str | None = None,
        run: str | None = None,
        limit: int | None = None,
    ) -> list[LoggedCandidate]:
        """Images that a rater has not rated, each once.

        The order is that of the images' hashes: it says nothing of what drew them, is the same for
        all raters (so that raters who stop early share images) and stays when images are added.

        Args:
            rater: Whose ratings count.
            modality: Only images of one modality card's name.
            run: Only images of one run.
            limit: At most so many.
        """
        where, values = _where(run=run, modality=modality)
        sql = QUEUE.format(where=where, limit="" if limit is None else f" LIMIT {int(limit)}")
        return self._read(LoggedCandidate, sql, [*values, rater])

    def agreement(self, source: Source = "human", modality: str | None = None) -> list[Agreement]:
        """How far raters of one source agree, for each scale in use."""
        from medgen.feedback.agreement import agreements

        return agreements(self.ratings(source=source, modality=modality), source, modality)

    def stats(self) -> LogStats:
        """What the log holds, and how far its raters agree."""
        from medgen.feedback.accounts import log_stats

        return log_stats(self)

    def export(self, path: str | Path) -> Path:
        """Write the log to a file, whole or not at all.

        Args:
            path: `.jsonl` for everything, which `import` reads back; `.csv` for the ratings that
                count, in MINIM's columns and more.

        Raises:
            BadInput: Another ending, or the file is there already.
        """
        from medgen.feedback.exchange import export_log

        return export_log(self, Path(path))

    def count(self, table: str) -> int:
        """Rows of one table: "runs", "candidates" or "labels"."""
        return int(self._database.select(f"SELECT COUNT(*) FROM {table}")[0][0])

    def chosen(self) -> int:
        """How many candidates were a run's choice."""
        return int(self._database.select("SELECT COUNT(*) FROM candidates WHERE chosen = 1")[0][0])

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        self._database.close()

    def _labels(
        self, record: type[AnyLabel], history: bool, **filters: str | None
    ) -> list[AnyLabel]:
        kind = KINDS[record]
        where, values = _where(**filters)
        table = (
            "(SELECT * FROM labels WHERE kind = ?) AS every_label" if history else CURRENT_LABELS
        )
        sql = f"SELECT record FROM {table}{where} ORDER BY seq"
        return self._read(record, sql, [kind, *values])

    def _read(self, record: type[AnyRecord], sql: str, values: Values = ()) -> list[AnyRecord]:
        """The records of a query for the column `record`.

        Raises:
            BadInput: A row is no such record: something else than medgen wrote it.
        """
        with _collector_at_rest():
            rows = self._database.select(sql, values)
            try:
                return [record.model_validate_json(dumped) for (dumped,) in rows]
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or record.__name__
                raise BadInput(
                    f"feedback log {self.name} holds a row that is no {record.__name__} "
                    f"({where}: {first['msg']}): something else wrote it, or another medgen did; "
                    "nothing was read"
                ) from error


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python's garbage collector off while many records are made.

    It would walk over all that are there again and again, four fifths of the time; records hold no
    cycles, so it would find nothing. The thread that stopped it starts it again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _database(named: str, timeout: float) -> Database:
    scheme, separator, _ = named.partition("://")
    if not separator:
        from medgen.feedback.sqlite import SqliteDatabase

        return SqliteDatabase(Path(named), timeout)
    if scheme in ("postgresql", "postgres"):
        from medgen.feedback.postgres import PostgresDatabase

        return PostgresDatabase(named, timeout)
    raise BadInput(f"feedback log {scheme}://...: give a file, or a postgresql:// URL")


def _time(moment: datetime) -> str:
    """UTC with all its digits, so that text sorts as time does."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _row(record: Record) -> Row:
    if isinstance(record, LoggedRun):
        return "runs", (record.run, _time(record.created), record.model_dump_json())
    if isinstance(record, LoggedCandidate):
        return "candidates", (
            record.run,
            record.drawn.id,
            record.image_sha256,
            record.prompt,
            record.modality,
            int(record.chosen),
            _time(record.created),
            record.model_dump_json(),
        )
    assert isinstance(record, Label)
    return "labels", (
        record.id,
        KINDS[type(record)],
        record.subject,
        record.prompt,
        record.modality,
        record.rater,
        record.source,
        int(record.withdrawn),
        _time(record.created),
        record.model_dump_json(),
    )


def _where(**filters: str | None) -> tuple[str, list[str]]:
    given = {column: value for column, value in filters.items() if value is not None}
    if not given:
        return "", []
    return " WHERE " + " AND ".join(f"{column} = ?" for column in given), list(given.values())

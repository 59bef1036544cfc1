"""Ratings from a table in MINIM's columns: `image_path,rating,modality,expert_level,prompt`.

`rater`, `scale`, `source`, `comment` and `seconds` are read where they are there. A row's label has
an id that follows from the row, so that a table read twice is not counted twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from medgen.data.formats import Reading, read_rows
from medgen.data.images import pixel_sha256
from medgen.errors import BadInput
from medgen.feedback.agreement import agreements
from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import ImportReport, Rating, Scale, Source
from medgen.knowledge.cards import modality_cards

OPTIONAL = ("comment", "seconds", "blinded", "run", "candidate")
Row = dict[str, str]


def import_ratings(
    log: FeedbackLog,
    table: str | Path,
    *,
    scale: Scale | None = None,
    rater: str | None = None,
    source: Source | None = None,
) -> ImportReport:
    """Add the ratings of a table to a log, in one write.

    A row that cannot be used (no readable image, an unknown expert level) is passed over and told;
    a rating outside the scale refuses the table, for leaving such rows out would bend the rest.

    Args:
        log: Where to.
        table: A CSV or Parquet file. Relative image paths are looked for beside it, then in the
            working folder.
        scale: What the ratings go up to, over the column `scale`; told from the greatest rating
            when neither is given.
        rater: Who rated, over the column `rater`. With neither, the n-th rating of an image at one
            expert level is taken to be one rater's.
        source: Where the ratings come from, over the column `source`; people when neither is given.

    Returns:
        What was added, what was passed over and why, and how far the raters agree.

    Raises:
        BadInput: No table, a rating outside its scale, or no row that can be used; nothing was
            added then.
    """
    table = Path(table)
    reading = Reading()
    rows = [(reading.row, row) for row in read_rows(table, reading)]
    if not rows:
        raise BadInput(f"{table} has no rows: nothing was added")
    if "rating" not in rows[0][1]:
        raise BadInput(f"{table} has no column rating: it needs one with 1-3 or 1-5")
    report = ImportReport(table=str(table), rows=len(rows), notes=reading.notes)
    reader = _Reader(table, _scale_of(rows, scale, report), rater, source, report)
    ratings = [one for number, row in rows if (one := reader.rating(number, row)) is not None]
    if not ratings:
        raise BadInput(f"{table}: no row can be used ({report.skipped[0]}): nothing was added")
    report.added = log.append_labels(ratings)
    report.known = len(ratings) - report.added
    report.notes += [*reader.notes(), *_contradictions(ratings)]
    for kind in get_args(Source):
        report.agreement += agreements(ratings, kind)
    return report


def _scale_of(
    rows: list[tuple[int, Row]], scale: Scale | None, report: ImportReport
) -> Scale | None:
    """The scale of all rows; None where each row says its own."""
    if scale is not None or all(row.get("scale") for _, row in rows):
        return scale
    if any((_whole(row["rating"]) or 0) > 3 for _, row in rows):
        return 5
    report.notes.append(
        "no rating is above 3: read as 1-3, MINIM's scale; if they are 1-5, import with --scale 5"
    )
    return 3


@dataclass
class _Reader:
    """Turns rows into ratings and notes what had to be assumed."""

    table: Path
    scale: Scale | None
    rater: str | None
    source: Source | None
    report: ImportReport
    hashes: dict[str, str | None] = field(default_factory=dict)
    unnamed: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def rating(self, number: int, row: Row) -> Rating | None:
        """A row's rating; None when the row is passed over."""
        scale = self.scale or _whole(row["scale"]) or 0
        value = _whole(row["rating"]) or 0
        if scale not in get_args(Scale) or not 1 <= value <= scale:
            raise BadInput(
                f"{self.table}, row {number}: rating {row['rating'] or '(empty)'} is not 1 to "
                f"{scale or row['scale']}: correct it, or say --scale 3 or 5; nothing was added"
            )
        path = self._image(row["path"])
        digest = self._digest(path)
        if digest is None:
            self.report.skipped.append(f"row {number}: no readable image at {path}")
            return None
        level: Any = row.get("expert_level", "")
        try:
            given: dict[str, Any] = {name: row[name] for name in OPTIONAL if row.get(name)}
            rating = Rating(
                **given,
                rater=self.rater or row.get("rater") or self._unnamed(level, digest, row["text"]),
                source=self.source or row.get("source") or "human",
                expert_level=_whole(level) or level or None,
                prompt=row["text"],
                modality=modality_name(row["modal"]),
                image_sha256=digest,
                image_path=str(path),
                rating=value,
                scale=scale,
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            self.report.skipped.append(f"row {number}: {where}: {first['msg'].lower()}")
            return None
        rating.id = _id_of(rating)
        return rating

    def notes(self) -> list[str]:
        """What had to be assumed of all rows."""
        if not self.unnamed:
            return []
        return [
            "no rater is named: the n-th rating of an image at one expert level counts as one "
            "rater's (say --rater NAME if one person rated)"
        ]

    def _unnamed(self, level: str, digest: str, prompt: str) -> str:
        key = (level, digest, prompt)
        self.unnamed[key] += 1
        return f"{self.table.stem}: level {level or 'unknown'}, {self.unnamed[key]}"

    def _image(self, beside: str) -> Path:
        """Where an image is: beside the table, else under the working folder."""
        path = Path(beside)
        folder = self.table.parent.resolve()
        if not path.is_file() and path.is_relative_to(folder):
            here = Path.cwd() / path.relative_to(folder)
            path = here if here.is_file() else path
        return path

    def _digest(self, path: Path) -> str | None:
        if str(path) not in self.hashes:
            try:
                self.hashes[str(path)] = pixel_sha256(path)
            except BadInput:
                self.hashes[str(path)] = None
        return self.hashes[str(path)]


def _whole(text: str) -> int | None:
    """3 for "3" and "3.0" (some tables hold floats); None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def modality_name(named: str) -> str:
    """The modality card of that name or alias; the name as it is when there is none."""
    wanted = named.casefold()
    for card in modality_cards().values():
        if wanted in (name.casefold() for name in (card.name, *card.aliases)):
            return card.name
    return named


def _id_of(rating: Rating) -> str:
    content = rating.model_dump(mode="json", exclude={"id", "created", "image_path"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _contradictions(ratings: list[Rating]) -> list[str]:
    given: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for one in ratings:
        given[one.rater, one.image_sha256, one.prompt].add(one.rating)
    contradictory = [key for key, values in given.items() if len(values) > 1]
    if not contradictory:
        return []
    raters = sorted({rater for rater, _, _ in contradictory})
    return [
        f"{len(contradictory)} images were rated twice and differently by one rater "
        f"({', '.join(raters[:3])}): the later row counts"
    ]

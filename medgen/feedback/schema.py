"""The tables of the feedback log, in the SQL that SQLite and PostgreSQL share.

A row keeps its record whole, as JSON, beside the columns that queries need. Rows are only ever
added: triggers refuse to change or remove them. A change of the tables is a new entry at the end of
`MIGRATIONS`; the log's `feedback_schema` table tells how many of them it has been through.
"""

from __future__ import annotations

TABLES = {
    "runs": ("run", "created", "record"),
    "candidates": (
        "run",
        "candidate",
        "image_sha256",
        "prompt",
        "modality",
        "chosen",
        "created",
        "record",
    ),
    "labels": (
        "id",
        "kind",
        "subject",
        "prompt",
        "modality",
        "rater",
        "source",
        "withdrawn",
        "created",
        "record",
    ),
}

# {serial} is the database's own spelling of a growing primary key.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            seq {serial}, run TEXT NOT NULL UNIQUE, created TEXT NOT NULL, record TEXT NOT NULL)""",
        """CREATE TABLE candidates (
            seq {serial}, run TEXT NOT NULL, candidate TEXT NOT NULL, image_sha256 TEXT NOT NULL,
            prompt TEXT NOT NULL, modality TEXT NOT NULL, chosen INTEGER NOT NULL,
            created TEXT NOT NULL, record TEXT NOT NULL, UNIQUE (run, candidate))""",
        "CREATE INDEX candidates_by_image ON candidates (image_sha256, seq)",
        """CREATE TABLE labels (
            seq {serial}, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, subject TEXT NOT NULL,
            prompt TEXT NOT NULL, modality TEXT NOT NULL, rater TEXT NOT NULL,
            source TEXT NOT NULL, withdrawn INTEGER NOT NULL, created TEXT NOT NULL,
            record TEXT NOT NULL)""",
        """CREATE INDEX labels_by_rater
            ON labels (kind, rater, subject, prompt, created, seq, withdrawn)""",
    ),
)

VERSION = len(MIGRATIONS)

# Labels that count: the newest of a rater on a subject and prompt, unless it takes itself back.
CURRENT_LABELS = """(
    SELECT * FROM (
        SELECT *, ROW_NUMBER() OVER (
            PARTITION BY kind, rater, subject, prompt ORDER BY created DESC, seq DESC) AS age
        FROM labels WHERE kind = ?) AS aged
    WHERE age = 1 AND withdrawn = 0) AS current_labels"""

QUEUE = """SELECT record FROM candidates WHERE seq IN (
        SELECT MIN(seq) FROM candidates {where} GROUP BY image_sha256)
    AND image_sha256 NOT IN (SELECT subject FROM (
        SELECT subject, withdrawn, ROW_NUMBER() OVER (
            PARTITION BY subject, prompt ORDER BY created DESC, seq DESC) AS age
        FROM labels WHERE kind = 'rating' AND rater = ?) AS aged
        WHERE age = 1 AND withdrawn = 0)
    ORDER BY image_sha256{limit}"""

# A subject is an image's hash (64 digits), or two with a "+" between.
LABELLED_IMAGES = """SELECT substr(subject, 1, 64) FROM labels
    UNION SELECT substr(subject, 66, 64) FROM labels"""

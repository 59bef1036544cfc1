"""That the log stays fast: processor seconds of a small one, so that a slow way back is noticed.

The figures for 100,000 candidates are tests/bench/feedback_log.py's.
"""

from __future__ import annotations

import time
from pathlib import Path

from samples import pair, rated, run

from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import Label

RUNS, EACH = 500, 4


def test_appending_and_the_training_query(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "log.sqlite")
    runs = [run(f"run-{number}", EACH, prompt=f"prompt {number}") for number in range(RUNS)]
    labels: list[Label] = [
        rated(one, 1 + n % 5) for r in runs for n, one in enumerate(r.candidates)
    ]
    labels += [pair(f"run-{n}/0", f"run-{n}/1", prompt=f"prompt {n}") for n in range(RUNS)]

    started = time.process_time()
    for one in runs:
        log.append_run(one)
    seconds = time.process_time() - started
    assert RUNS * EACH / seconds > 500, f"{RUNS * EACH / seconds:.0f} candidates a second"

    log.append_labels(labels)
    started = time.process_time()
    rows = log.labelled()
    found = [*log.ratings(), *log.pairs()]
    seconds = time.process_time() - started
    assert len(rows) == RUNS * EACH and len(found) == RUNS * (EACH + 1)
    limit = 2.0 * RUNS * EACH / 100_000 * 5  # 2 s for 100,000 rows, five times over
    assert seconds < limit, f"{seconds:.3f} s for {len(rows)} labelled candidates"


def test_labelled_rows_are_the_candidates(log: FeedbackLog) -> None:
    one = run("a", 3)
    log.append_run(one)
    log.append_labels([rated(one.candidates[1], 4)])
    (row,) = log.labelled()
    (whole,) = log.candidates(rated=True)
    assert row.image_sha256 == whole.image_sha256 and row.prompt == whole.prompt
    assert type(whole).model_validate_json(row.record) == whole

"""How fast a feedback log of 100,000 candidates is written and read, and by four processes at once.

    python tests/bench/feedback_log.py [--candidates 100000] [--log FILE_OR_URL]

Candidates carry critiques as the agent's do (two findings with measurements, about 2 kB); one in
five is rated and one in ten is in a pair. Prints figures; the log lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from medgen.feedback.log import FeedbackLog
from medgen.feedback.records import Label, LoggedCandidate, LoggedRun, Pair, Rating
from medgen.records import (
    Candidate,
    Conditioning,
    Correction,
    Critique,
    Finding,
    Measurement,
    NearestTraining,
    Plan,
    Quality,
    Request,
)

MODALITY = "Chest X-ray"
PER_RUN = 4
WRITERS = 4


def prompt_of(run: int) -> str:
    return f"cardiomegaly with right pleural effusion, chest X-ray, {run % 2000} days old"


def candidate(run: int, number: int) -> LoggedCandidate:
    measurement = Measurement(
        name="cardiothoracic_ratio",
        value=0.4 + number / 100,
        expected=(0.5, None),
        check="chest masks",
        accuracy="AUC 0.91 on 296 films",
    )
    findings = [
        Finding(finding=name, verdict="confirmed", confidence=0.8, measurements=[measurement] * 2)
        for name in ("cardiomegaly", "pleural effusion")
    ]
    critique = Critique(
        modality=MODALITY,
        modality_confidence=0.99,
        findings=findings,
        quality=Quality(score=0.9, measurements=[measurement] * 3),
        nearest_training=NearestTraining(distance=0.4, percentile=55),
        corrections=[Correction(finding="cardiomegaly", text="enlarge the heart by 10 %")],
        accepted=True,
        score=0.8,
    )
    conditioning = Conditioning(
        prompt="chest X-ray, PA view, enlarged cardiac silhouette, blunted costophrenic angle",
        modality=MODALITY,
        structured={"cardiothoracic_ratio": 0.56, "view": "PA"},
        seed=run * PER_RUN + number,
    )
    return LoggedCandidate(
        run=f"run-{run}",
        prompt=prompt_of(run),
        modality=MODALITY,
        image_sha256=sha256(f"{run}/{number}".encode()).hexdigest(),
        chosen=number == 0,
        drawn=Candidate(
            id=f"image0-round1-{number}",
            round=1,
            image=f"/runs/run-{run}/candidates/image0-round1-{number}.png",
            conditioning=conditioning,
            critique=critique,
        ),
    )


def logged_run(run: int) -> LoggedRun:
    prompt = prompt_of(run)
    return LoggedRun(
        run=f"run-{run}",
        request=Request(prompt=prompt),
        plan=Plan(prompt=prompt, modality=MODALITY),
        generator="compact",
        fingerprint="0" * 64,
        candidates=[candidate(run, number) for number in range(PER_RUN)],
    )


def labels_of(one: LoggedRun, number: int) -> Iterator[Label]:
    first, second = one.candidates[:2]
    given = {"rater": f"rater {number % 5}", "source": "simulated", "prompt": first.prompt}
    yield Rating(
        **given,
        modality=MODALITY,
        image_sha256=first.image_sha256,
        image_path=first.image_path,
        rating=1 + number % 5,
    )
    if number % 5 < 2:
        yield Pair(
            **given,
            modality=MODALITY,
            winner=first.image_sha256,
            loser=second.image_sha256,
            winner_path=first.image_path,
            loser_path=second.image_path,
        )


FIGURES: dict[str, float] = {}


@contextmanager
def timed(name: str, per: int | None = None) -> Iterator[None]:
    wall, busy = time.perf_counter(), time.process_time()
    yield
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    if per is None:
        FIGURES[f"{name}, s"] = round(wall, 2)
        FIGURES[f"{name}, processor s"] = round(busy, 2)
    else:
        FIGURES[f"{name}, per s"] = round(per / wall)
        FIGURES[f"{name}, per processor s"] = round(per / busy)


def write(place: str, writer: int, runs: int) -> None:
    log = FeedbackLog(place, timeout=60)
    for number in range(runs):
        log.append_run(logged_run(10_000_000 + writer * 1_000_000 + number))


def four_at_once(place: str, log: FeedbackLog) -> None:
    before, runs = log.count("candidates"), 250
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write, args=(place, n, runs)) for n in range(WRITERS)]
    with timed("four processes at once, candidates", per=WRITERS * runs * PER_RUN):
        for one in writers:
            one.start()
        for one in writers:
            one.join()
    FIGURES["lost by four processes"] = WRITERS * runs * PER_RUN - log.count("candidates") + before
    del FIGURES["four processes at once, candidates, per processor s"]  # theirs, not this one's


def query(name: str, act: Callable[[], list[object]]) -> None:
    with timed(name):
        FIGURES[f"{name}, rows"] = len(act())


def measure(place: str, candidates: int) -> None:
    log = FeedbackLog(place)
    singles = [candidate(20_000_000 + n, 0) for n in range(1000)]
    with timed("append_candidate", per=len(singles)):
        for one in singles:
            log.append_candidate(one)
    labels: list[Any] = []
    with timed(f"append_run of {PER_RUN}, candidates", per=candidates):
        for number in range(candidates // PER_RUN):
            run = logged_run(number)
            log.append_run(run)
            labels += labels_of(run, number) if number % 5 < 4 else ()
    with timed("append_labels, one write", per=len(labels)):
        log.append_labels(labels)
    with timed("append_rating, each on the disk", per=100):
        for number in range(100):
            log.append_rating(next(iter(labels_of(logged_run(number), number + 7))))
    labels.clear()  # else Python's garbage collector walks over them in every query
    query("ratings", lambda: list(log.ratings()))
    query("pairs", lambda: list(log.pairs()))
    query("what training reads (labels, unread rows)", lambda: [
        *log.ratings(), *log.pairs(), *log.labelled()])  # fmt: skip
    query("candidates with a label", lambda: list(log.candidates(rated=True)))
    query("queue of one rater, first 100", lambda: list(log.queue("rater 0", limit=100)))
    four_at_once(place, log)
    if Path(place).exists():
        FIGURES["file, MB"] = round(Path(place).stat().st_size / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--log", help="an empty log; one in a temporary folder when not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given.log or str(Path(folder) / "log.sqlite"), given.candidates)
    print(json.dumps(FIGURES, indent=2))


if __name__ == "__main__":
    main()

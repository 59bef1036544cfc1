"""What a folder of runs amounts to: progress, balance, verdicts, and why images were rejected.

Reads the small JSON files of each run; a finished run is read once. Decides nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from medgen.graphs.outcome import phrase
from medgen.graphs.run_folder import REQUEST, RUN, TRACE_LINES
from medgen.graphs.runs import list_runs
from medgen.records import Run, TraceEvent

RUNS_KEPT = 20_000


@dataclass(frozen=True)
class RunAccount:
    """One finished run: an entry an image asked for."""

    outcomes: tuple[bool | None, ...]
    findings: tuple[tuple[str, str], ...]  # in words, verdict
    reasons: tuple[str, ...]
    seconds: float
    drawn: int


@dataclass
class Accounts:
    """All runs of a folder together; counts are of images unless said otherwise.

    `findings` counts verdicts by finding; `seconds` are working seconds of finished runs.
    """

    finished: int = 0
    unfinished: int = 0
    damaged: int = 0
    outcomes: Counter[bool | None] = field(default_factory=Counter)
    drawn: int = 0
    seconds: float = 0.0
    modalities: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """Images asked for by finished runs."""
        return self.outcomes.total()


def run_folders(runs: Path) -> list[Path]:
    """The runs folder itself, and those of its folders that hold runs, by name."""
    if not runs.is_dir():
        return [runs]
    within = [
        entry
        for entry in sorted(runs.iterdir())
        if entry.is_dir() and not (entry / REQUEST).exists()
    ]
    return [runs, *(one for one in within if any(one.glob(f"*/{REQUEST}")))]


def account_for(folder: Path) -> Accounts:
    """Add up the runs of a folder.

    Raises:
        BadInput: The folder cannot be listed.
    """
    total = Accounts()
    for run in list_runs(folder):
        if run.status != "finished":
            total.damaged += run.status == "damaged"
            total.unfinished += run.status == "unfinished"
            continue
        path = Path(run.folder)
        one = _account(path, (path / RUN).stat().st_mtime_ns)
        total.finished += 1
        total.outcomes.update(one.outcomes)
        total.drawn += one.drawn
        total.seconds += one.seconds
        total.modalities[run.modality or "unknown"] += len(one.outcomes)
        total.reasons.update(one.reasons)
        for words, verdict in one.findings:
            total.findings.setdefault(words, Counter())[verdict] += 1
    return total


@lru_cache(maxsize=RUNS_KEPT)
def _account(folder: Path, changed: int) -> RunAccount:
    run = Run.model_validate_json((folder / RUN).read_bytes())
    return RunAccount(
        outcomes=tuple(one.accepted for one in run.results),
        findings=tuple(
            (phrase(finding), finding.verdict or "abstain")
            for one in run.results
            for finding in one.findings
        ),
        reasons=tuple(_reasons(folder)),
        seconds=run.seconds,
        drawn=run.candidates,
    )


def _reasons(folder: Path) -> Iterator[str]:
    """Why the run's images were given up, without the figures that make each reason unique."""
    if not (folder / TRACE_LINES).is_file():
        return
    lines = (folder / TRACE_LINES).read_text(encoding="utf-8").splitlines()
    events = [TraceEvent.model_validate_json(line) for line in lines]
    choices: Any = next((e.outputs["choices"] for e in reversed(events) if e.node == "select"), [])
    for choice in choices:
        if choice["decision"] == "give up":
            yield re.sub(r"\s*\([^()]*\)", "", choice["why"].split(";")[0])

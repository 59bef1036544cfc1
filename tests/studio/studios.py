"""A studio on a port of this machine, started and killed as a user would."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from medgen.feedback.log import FeedbackLog

STARTS_WITHIN = 240


@dataclass(frozen=True)
class Place:
    """Where a studio of the tests keeps its things."""

    runs: Path
    feedback: Path
    real: Path
    knowledge: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MEDGEN_RUNS": str(self.runs),
            "MEDGEN_FEEDBACK": str(self.feedback),
            "MEDGEN_KNOWLEDGE": str(self.knowledge),
        }

    @property
    def log(self) -> FeedbackLog:
        return FeedbackLog(self.feedback)


@contextmanager
def studio(place: Place, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The `medgen studio` command as a user starts it, until the block is left."""
    command = [sys.executable, "-m", "medgen.cli", "studio", "--port", str(port)]
    command += ["--runs", str(place.runs), "--real", str(place.real)]
    environment = {**os.environ, **place.environment, "OMP_NUM_THREADS": "1"}
    said = place.runs.parent / f"studio_{port}.log"
    with (
        said.open("wb") as errors,
        subprocess.Popen(command, env=environment, stderr=errors) as process,
    ):
        try:
            _wait_until_it_answers(process, port, said)
            yield process
        finally:
            process.kill()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(said.read_text(encoding="utf-8"))
        try:
            httpx.get(f"http://127.0.0.1:{port}/config", timeout=5)
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the studio did not answer within {STARTS_WITHIN} s")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def chromium() -> str | None:
    """Chromium's path, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")

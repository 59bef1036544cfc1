"""A dataset run killed by SIGKILL, engine or worker, ends as one that was never touched.

The processes are real and really killed (`tests/bench/synthesis_kills.py`, which by hand kills
thirty times); what draws is a phantom, for speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[1] / "bench" / "synthesis_kills.py"
KILLS = 3


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    if not hasattr(os, "fork") or not Path("/proc/self").exists():
        pytest.skip("this platform cannot fork, or has no /proc")
    own = {
        "OMP_NUM_THREADS": "1",
        "MEDGEN_THREADS": "1",
        "MEDGEN_KNOWLEDGE": str(tmp_path / "knowledge"),
    }
    options = ["--kills", str(KILLS), "--each", "4", "--seed", "5", "--seconds", "0.3"]
    answer = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path / "sets"), *options],
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout.splitlines()[-1])
    assert len(told["kills"]) == KILLS
    assert told["while working"] >= 2 and told["kills"][-1]["drawn"] > 0
    assert told["finished"] and told["same"] and told["never less"]
    assert told["kept"][0] == told["kept"][1] > 0
    assert told["drawn"][0] == told["drawn"][1] > 0

"""A run killed by SIGKILL in any node goes on there and gives the same final image, byte for byte.

The processes are real and really killed (`resume_driver.py`); what draws is a phantom, for speed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("resume_driver.py")
NODES = {
    "parse",
    "localize_anatomy",
    "assess_pathology",
    "retrieve",
    "map_features",
    "write_report",
    "compose",
    "generate",
    "verify",
    "select",
    "refine",
    "record",
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the driver told of one unbroken run and of all the killed ones."""
    if not hasattr(os, "fork"):
        pytest.skip("this platform cannot fork")
    folder = tmp_path_factory.mktemp("resume")
    own = {
        "OMP_NUM_THREADS": "1",
        "MEDGEN_THREADS": "1",
        "MEDGEN_KNOWLEDGE": str(folder / "knowledge"),
    }
    answer = subprocess.run(
        [sys.executable, str(DRIVER), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def test_the_unbroken_run_went_through_every_node(story: dict[str, Any]) -> None:
    assert set(story["steps"]) == NODES
    assert story["accepted"] is True


def test_every_node_was_killed(story: dict[str, Any]) -> None:
    assert {one["node"] for one in story["kills"] if one["when"] == "after"} == NODES
    assert {one["signal"] for one in story["kills"]} == {signal.SIGKILL}


def test_a_kill_midway_left_a_part_of_the_round(story: dict[str, Any]) -> None:
    midway = [one for one in story["kills"] if one["when"] == "midway"]
    assert len(midway) == story["steps"].count("generate")
    for before, one in enumerate(midway):
        assert len(one["left"]) == 2 * before + 1


def test_every_killed_run_gave_the_unbroken_runs_image(story: dict[str, Any]) -> None:
    differing = [(one["node"], one["when"]) for one in story["kills"] if not one["same"]]
    assert differing == []


def test_every_resumed_trace_has_each_step_once(story: dict[str, Any]) -> None:
    for one in story["kills"]:
        assert one["steps"] == story["steps"], (one["node"], one["when"])

"""Ten people use one server at once: is anything mixed up, and does its memory stay bounded?

    python tests/bench/serve_ten_users.py [--users 10] [--runs 2] [--steps 20] [--rounds 1]

Starts `medgen serve` with the project's own generator in a process of its own. Every user asks
runs of their own (request and seed), follows their events, fetches image and trace, and checks
that all of it is theirs: the run's prompt, the prompt and seed in the PNG, the plan in the trace,
the steps in order. Meanwhile the server's resident memory is read from /proc. Prints one JSON
object; exits 1 when something was mixed up.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

REQUESTS = (
    "cardiomegaly, chest X-ray",
    "right pleural effusion, chest X-ray",
    "pneumonia, chest X-ray",
    "normal chest X-ray",
    "glioma, brain MRI",
    "meningioma, brain MRI",
    "pituitary tumor, brain MRI",
    "lung cancer, chest CT",
    "glaucoma, fundus",
    "macular edema, OCT",
)
MIB = 1024
ANEW = httpx2.Limits(max_keepalive_connections=0)  # an idle one may close under a slow client


def resident(process: int) -> float:
    """Resident memory of a process, MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / MIB


def one_run(client: httpx2.Client, prompt: str, seed: int, given: argparse.Namespace) -> list[str]:
    """Ask, follow and fetch a run; what was not its asker's own."""
    body = {"prompt": prompt, "seed": seed, "rounds": given.rounds, "steps": given.steps}
    answer = client.post("/runs", json={**body, "candidates": 2})
    answer.raise_for_status()
    run_id = answer.json()["run_id"]
    steps: list[int] = []
    with client.stream("GET", f"/runs/{run_id}/events", timeout=None) as events:
        for line in events.iter_lines():
            if line.startswith("id: "):
                steps.append(int(line[4:]))
    view: dict[str, Any] = client.get(f"/runs/{run_id}").json()
    trace = client.get(f"/runs/{run_id}/trace").json()
    picture = Image.open(BytesIO(client.get(view["images"][0]).content))
    seen = {
        "status": (view["status"], "finished"),
        "prompt of the run": (view["prompt"], prompt),
        "prompt of the plan": (trace["plan"]["prompt"], prompt),
        "seed of the run": (view["seed"], seed),
        "prompt in the image": (picture.text["Prompt"], prompt),  # type: ignore[attr-defined]
        "seed in the image": (picture.text["Run seed"], str(seed)),  # type: ignore[attr-defined]
        "steps": (steps, list(range(1, len(trace["events"]) + 1))),
    }
    return [
        f"{run_id} {name}: {found} is not {own}"
        for name, (found, own) in seen.items()
        if found != own
    ]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--users", type=int, default=10)
    options.add_argument("--runs", type=int, default=2)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--rounds", type=int, default=1)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as errors:
            server = subprocess.Popen(
                [sys.executable, "-m", "medgen.cli", "serve", "--port", "0", "--runs", folder],
                stderr=errors,
                env={**os.environ, "MEDGEN_FEEDBACK": "off"},
            )
        try:
            print(json.dumps(measured(server, log, given), indent=1))
        finally:
            server.terminate()
            server.wait()
            sys.stderr.write(log.read_text())


def measured(
    server: subprocess.Popen[bytes], log: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Let the users work, and say how it went."""
    while not (told := re.findall(r"http://\S+", log.read_text())):
        time.sleep(0.5)
    address = told[0]
    with httpx2.Client(base_url=address, timeout=300, limits=ANEW) as client:
        while client.get("/health").json()["status"] != "ok":
            time.sleep(1)
        one_run(client, REQUESTS[0], 0, given)  # so that all that loads late is loaded
    memory, over = [resident(server.pid)], threading.Event()

    def watch() -> None:
        while not over.wait(1):
            memory.append(resident(server.pid))

    def user(number: int) -> list[str]:
        prompt = REQUESTS[number % len(REQUESTS)]
        with httpx2.Client(base_url=address, timeout=300, limits=ANEW) as client:
            asked = range(given.runs)
            return [
                bad for run in asked for bad in one_run(client, prompt, number * 100 + run, given)
            ]

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    with ThreadPoolExecutor(given.users) as people:
        mixed = [bad for some in people.map(user, range(given.users)) for bad in some]
    seconds = time.monotonic() - started
    over.set()
    watcher.join()
    if mixed:
        print(*mixed, sep="\n", file=sys.stderr)
        sys.exit(1)
    return {
        "users": given.users,
        "runs": given.users * given.runs,
        "mixed up": len(mixed),
        "seconds": round(seconds, 1),
        "MiB before": round(memory[0]),
        "MiB at most": round(max(memory)),
        "MiB after": round(memory[-1]),
    }


if __name__ == "__main__":
    main()

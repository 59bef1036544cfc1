"""A Ray cluster of two local nodes makes the same dataset as this machine's processes.

    python tests/bench/synthesis_ray_nodes.py FOLDER [--each 12] [--real]

Four runs of one specification: local processes; two Ray nodes; two nodes of which one is killed
(SIGKILL to its raylet and workers) in the middle; two nodes writing to an S3 server (moto) on
loopback. Prints one JSON object: seconds, how many candidates were drawn when the node was killed
and in the end, and whether images and manifests are the same byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "graphs"))
sys.path.insert(0, str(Path(__file__).parent))

import ray
from ray.cluster_utils import Cluster
from synthesis_kills import SPEC, digests, slow_minds

from medgen.graphs import synthesis
from medgen.graphs.synthesis import synthesize

BUCKET = "s3://datasets/set"
SECRETS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def two_nodes() -> tuple[Cluster, Any]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    return cluster, cluster.add_node(num_cpus=1, num_gpus=0)


def on_s3(folder: Path, run: Any) -> dict[str, str]:
    """Run with an S3 server beside; the digests of what lies there then."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        SECRETS,
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_DEFAULT_REGION="us-east-1",
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    files = fsspec.filesystem("s3")
    files.mkdir("datasets")
    try:
        run(BUCKET)
        root = BUCKET.removeprefix("s3://")
        found = {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}
    finally:
        server.stop()
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in found.items()
        if name not in ("journal.sqlite", "dataset.json")
    }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--each", type=int, default=12)
    options.add_argument("--real", action="store_true")
    given = options.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    spec = given.folder / "spec.yaml"
    text = SPEC.format(each=given.each, near_copies=str(given.real).lower())
    spec.write_text(text, encoding="utf-8")
    minds = None if given.real else slow_minds
    synthesis._write_card = lambda *_given: None  # says when it was made
    told: dict[str, Any] = {}

    def local(out: Any) -> None:
        clock = time.monotonic()
        told["local"] = {"drawn": synthesize(spec, out, workers=2, minds=minds).drawn}
        told["local"]["seconds"] = round(time.monotonic() - clock, 1)

    def on_ray(name: str, out: Any, kill: bool = False) -> None:
        cluster, second = two_nodes()
        clock, killed = time.monotonic(), {}

        def perhaps_kill(progress: Any) -> None:
            if kill and not killed and progress.drawn >= told["local"]["drawn"] // 3:
                killed.update(drawn=progress.drawn, workers=progress.workers)
                threading.Thread(target=cluster.remove_node, args=(second, False)).start()

        try:
            outcome = synthesize(
                spec,
                out,
                workers=2,
                engine="ray",
                address=cluster.address,
                minds=minds,
                on_progress=perhaps_kill,
            )
        finally:
            ray.shutdown()
            cluster.shutdown()
        told[name] = {
            "drawn": outcome.drawn,
            "kept": outcome.kept,
            "killed at": killed,
            "quarantined": len(outcome.quarantined),
            "seconds": round(time.monotonic() - clock, 1),
        }

    local(given.folder / "local")
    expected = digests(given.folder / "local")
    for name, kill in (("ray", False), ("ray, a node killed", True)):
        out = given.folder / name.replace(", ", "-").replace(" ", "-")
        on_ray(name, out, kill)
        told[name]["same"] = digests(out) == expected
    found = on_s3(given.folder, lambda out: on_ray("ray to s3", out))
    told["ray to s3"]["same"] = found == expected
    told["files"] = len(expected)
    print(json.dumps(told))


if __name__ == "__main__":
    main()

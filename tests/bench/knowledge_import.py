"""Times an import of synthetic terms, a kill in its middle, a second import, and queries after it.

    python tests/bench/knowledge_import.py FOLDER [TERMS] [KIND]

Prints one JSON object a step with processor and wall seconds. KIND is obo, radlex or snomed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from knowledge_synthetic import WRITERS

FILES = {"obo": ("obo", "terms.obo"), "radlex": ("owl", "RadLex.owl"), "snomed": ("rf2", "rf2")}
QUESTIONS = (
    "widened main artery", "chronic scar of the lung", "left retina bleeding", "nodule of pleura",
    "swelling of the brain", "blocked vein of the eye", "old rib fracture", "cyst in the hilum",
)  # fmt: skip


def say(step: str, **figures: object) -> None:
    print(json.dumps({"step": step, **figures}), flush=True)


def take(folder: Path, kind: str, source: Path) -> None:
    """Import in this process, saying how the steps went."""
    from medgen.knowledge.embedder import default_embedder
    from medgen.knowledge.shelf import Shelf
    from medgen.knowledge.workspace import ready_vectors

    shelf = Shelf(folder / "shelf", ready_vectors(default_embedder()), write=True)
    seen: dict[str, float] = {}

    def progress(step: str, done: int, total: int) -> None:
        if step not in seen:
            say(f"begins {step}", of=total, processor=round(time.process_time(), 1))
        seen[step] = done

    result = shelf.take(kind, source, progress)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say("import", processor=round(time.process_time(), 1), peak_mb=peak, **result.model_dump())


def ask(folder: Path) -> None:
    """Time opening and asking."""
    from medgen.knowledge.embedder import default_embedder
    from medgen.knowledge.shelf import Shelf
    from medgen.knowledge.workspace import ready_vectors

    embedder = ready_vectors(default_embedder())
    embedder(["warm"])
    begun = time.process_time()
    shelf = Shelf(folder / "shelf", embedder)
    say("open", terms=len(shelf), processor=round(time.process_time() - begun, 4))
    times, walls = [], []
    for number in range(5 * len(QUESTIONS)):
        text = f"{QUESTIONS[number % len(QUESTIONS)]} {number}"
        begun, wall = time.process_time(), time.perf_counter()
        shelf.search(text, embedder([text])[0], 8, 0.3)
        times.append(time.process_time() - begun)
        walls.append(time.perf_counter() - wall)
    say(
        "query",
        median_processor_ms=round(1000 * statistics.median(times), 1),
        worst_processor_ms=round(1000 * max(times), 1),
        median_wall_ms=round(1000 * statistics.median(walls), 1),
    )


def main() -> None:
    folder, count = Path(sys.argv[1]), int((sys.argv[2:3] or ["50000"])[0])
    kind = (sys.argv[3:4] or ["obo"])[0]
    writer, name = FILES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / name
    if not source.exists():
        WRITERS[writer](source, count)
    command = [sys.executable, __file__, "--take", str(folder), kind, str(source)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:  # killed outright some seconds into the embedding
        sys.stdout.write(line)
        if "begins embedding" in line:
            time.sleep(float(os.environ.get("KILL_AFTER", "60")))
            first.send_signal(signal.SIGKILL)
    first.wait()
    say("killed", returncode=first.returncode)
    for _ in range(2):
        subprocess.run(command, check=True)
    ask(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--take"]:
        take(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    elif len(sys.argv) < 2:
        raise SystemExit(__doc__)
    else:
        main()

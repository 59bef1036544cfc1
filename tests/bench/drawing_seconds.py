"""Seconds that drawing takes once models are loaded, by size of the sampling batch.

    python tests/bench/drawing_seconds.py --batches 1 2 4 --seeds 4

A film with a heart size (three branches of guidance) and a brain (two), each drawn alone, median
over seeds, and sixteen of each in one call. Default steps, all cores.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command sets it

from medgen.generator.backends import load_generator
from medgen.records import Conditioning
from medgen.settings import settings

ASKED = (
    Conditioning(
        prompt="cardiomegaly, chest X-ray",
        modality="Chest X-ray",
        structured={"cardiothoracic_ratio": 0.55, "view": "PA"},
    ),
    Conditioning(prompt="meningioma, brain MRI", modality="Brain MRI"),
)
MANY = 16


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--seeds", type=int, default=4)
    given = options.parse_args()
    for batch in given.batches:
        generator = load_generator(settings().model_copy(update={"micro_batch": batch}))
        for told in ASKED:
            alone = []
            for seed in range(given.seeds):
                clock = time.perf_counter()
                generator.sample([told.model_copy(update={"seed": seed})])
                alone.append(time.perf_counter() - clock)
            clock = time.perf_counter()
            generator.sample([told.model_copy(update={"seed": seed}) for seed in range(MANY)])
            many = time.perf_counter() - clock
            print(
                f"batch {batch}, {told.modality}: one {median(alone):.2f} s, "
                f"{MANY} in {many:.1f} s ({MANY / many:.2f} a second)",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Peak memory of the training index over a generated table: python THIS --rows 1000000

Writes a table of that many rows (no pictures), indexes it with as many joined rows, carves the
folds, computes the sampling weights and draws captions for a hundred batches. Prints rows, seconds
and the process's peak resident memory after each part.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import tempfile
import time
from pathlib import Path

from medgen.generator import captions
from medgen.generator.training.row_index import index_rows
from medgen.generator.training.rows import Draws

FINDINGS = ("normal chest", "bacterial pneumonia", "cardiomegaly", "pleural effusion")


def write_tables(folder: Path, rows: int) -> tuple[Path, Path]:
    """A table and one that joins a number to each of its rows."""
    random_ = random.Random(0)
    table, numbers = folder / "table.csv", folder / "numbers.csv"
    with table.open("w", newline="") as first, numbers.open("w", newline="") as second:
        rows_of, numbers_of = csv.writer(first), csv.writer(second)
        rows_of.writerow(["path", "text", "modal", "group"])
        numbers_of.writerow(["path", "cardiothoracic_ratio"])
        for i in range(rows):
            words = ". ".join(random_.sample(FINDINGS, 2)) + f". Patient seen on day {i}."
            rows_of.writerow([f"images/{i:08d}.png", words, "Chest X-ray", f"p{i // 3}"])
            numbers_of.writerow([f"images/{i:08d}.png", f"{random_.uniform(0.4, 0.6):.3f}"])
    return table, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    started = time.monotonic()

    def say(part: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{part}: {time.monotonic() - started:.0f} s, peak {peak:.0f} MB", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("imports")
        table, numbers = write_tables(folder, count)
        say(f"{count} rows written, {table.stat().st_size >> 20} MB")
        training, held_out = index_rows(table, [numbers], folder).folds()
        say(f"indexed, {training.path.stat().st_size >> 20} MB, {len(held_out)} held out")
        draws = Draws(training, seed=0, batch=32)
        say("weights")
        for step in range(100):
            random_ = random.Random(step)
            for pick in draws.of(step)[0].tolist():
                captions.caption(training[pick], random_)
        say("100 batches of 32 captions")


if __name__ == "__main__":
    main()

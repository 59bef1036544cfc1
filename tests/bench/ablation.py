"""Trains the ablation's rows one after another: same data, budget, batches and seed.

    python tests/bench/ablation.py --out FOLDER [--rows row0_minim row9_all] [--set steps=600]

A finished row is skipped and a killed one goes on from its last checkpoint; each row is a process
of its own. FOLDER gets a folder a row (with `generator/`) and `rows.csv`: parameters, GFLOPs,
images/s, seconds and held-out loss. The loss compares rows of one objective only (row2 to row9).
"""

import argparse
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

from medgen.data.images import write_atomic

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "ablation"
FINISHED = "finished.json"


def summary(folder, config):
    """What a finished row cost, from its log and its generator."""
    from medgen.generator.unet import MedicalUNet, cost

    with (folder / "log.csv").open(newline="") as stream:
        log = list(csv.DictReader(stream))
    seconds, before = 0.0, 0
    for row in log:
        step = int(row["step"])
        seconds += (step - before) * config.batch / float(row["images_per_second"])
        before = step
    figures = cost(MedicalUNet.from_pretrained(folder / "generator" / "unet").float())
    return {
        "row": folder.name,
        "images_seen": before * config.batch,
        "unet_parameters": figures["parameters"]["total"],
        "gflops": round(figures["flops"]["total"] / 1e9, 3),
        "seconds": round(seconds),
        "images_per_second": round(before * config.batch / seconds, 1),
        "held_out_loss": float(log[-1]["held_out"] or "nan"),
    }


def train_row(path, out, entries):
    """Train one row in this process and write its summary."""
    from medgen.generator.training.config import load_config, parse_changes
    from medgen.generator.training.loop import train

    shared = {"cache": str(out / "cache"), "tokenizer": str(out / "tokenizer.json")}
    folder = out / path.stem
    config = load_config(path, {**shared, **parse_changes(entries), "out": str(folder)})
    train(config)
    write_atomic(folder / FINISHED, json.dumps(summary(folder, config), indent=1))


def main():
    """Run what is not finished, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", help="names of configurations; all by default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="entries")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        train_row(given.row, given.out, given.entries)
        return 0
    rows = sorted(CONFIGS.glob("row*.yaml"))
    if given.rows:
        unknown = set(given.rows) - {path.stem for path in rows}
        if unknown:
            parser.error(f"no such row: {', '.join(sorted(unknown))}")
        rows = [path for path in rows if path.stem in given.rows]
    failed = []
    for path in rows:
        if not (given.out / path.stem / FINISHED).exists():
            print(f"== {path.stem}", flush=True)
            changes = [part for entry in given.entries for part in ("--set", entry)]
            command = [sys.executable, __file__, "--row", str(path), "--out", str(given.out)]
            if subprocess.run([*command, *changes], check=False).returncode:
                failed.append(path.stem)
        done = sorted(given.out.glob(f"row*/{FINISHED}"))
        summaries = [json.loads(file.read_text()) for file in done]
        if summaries:
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, list(summaries[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(summaries)
            write_atomic(given.out / "rows.csv", buffer.getvalue())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Peak memory and time of a fidelity evaluation of many images.

Run as `python tests/bench/evaluation_memory.py [--synthetic N] [--real N]`. Drawn textures of
256x256 pixels are written as PNG to a temporary folder, read as tables and scored by the bundled
encoder: what `medgen evaluate --suite fidelity` does.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from medgen.evaluation.context import Context
from medgen.evaluation.encoder import bundled_encoder
from medgen.evaluation.fidelity import measure
from medgen.evaluation.tables import ImageTable, read_table

LIMIT_GIB = 8


def written(folder: Path, name: str, count: int, seed: int) -> ImageTable:
    """A table of drawn images, read back and checked as a user's is."""
    generator = np.random.default_rng(seed)
    lines = ["path,text,modal,group"]
    for index in range(count):
        coarse = generator.integers(0, 256, (24, 24), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC))
        grain = generator.integers(0, 12, (256, 256), dtype=np.uint8)
        path = folder / name / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.minimum(smooth, 243) + grain).save(path, compress_level=1)
        lines.append(f"{path},a texture,Chest X-ray,{index}")
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return read_table(folder / f"{name}.csv", name)


def main() -> None:
    """Write, score, print seconds and peak memory; exit 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synthetic", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        started = time.time()
        real = written(folder, "real", options.real, 0)
        synthetic = written(folder, "synthetic", options.synthetic, 1)
        scored, cpu = time.time(), time.process_time()
        outcome = measure(Context(real, synthetic, None, (bundled_encoder(),), folder))
        for figure in outcome.figures:
            if figure.scope != "overall" and figure.value is not None:
                print(
                    f"{figure.metric}: {figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"
                )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{options.synthetic} synthetic and {options.real} real images: peak {peak:.2f} GiB, "
            f"{scored - started:.0f} s to write and check, {time.time() - scored:.0f} s to score "
            f"({time.process_time() - cpu:.0f} CPU s)"
        )
    sys.exit(peak > LIMIT_GIB)


if __name__ == "__main__":
    main()

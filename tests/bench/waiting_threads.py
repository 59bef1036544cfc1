"""What OpenMP's waiting costs: threads that spin long or briefly, on an idle and a busy machine.

    python tests/bench/waiting_threads.py --busy 0 4 --spins 0 1000 10000 100000 --seconds 15

The U-Net's forward passes a second on one picture's three branches with two threads, in a process
of its own for each count of spins (GOMP_SPINCOUNT; first as it is when nothing is set), beside so
many processes that do nothing but count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from multiprocessing import get_context

PASSES = """
import sys, time
import torch
from medgen.generator.backends import BUNDLED
from medgen.generator.unet import MedicalUNet
torch.set_num_threads(2)
unet = MedicalUNet.from_pretrained(BUNDLED / "unet", use_safetensors=True).float().eval()
side = unet.config.sample_size
noisy = torch.randn(3, unet.config.in_channels, side, side)
states = torch.randn(3, 8, unet.config.cross_attention_dim)
labels = torch.randn(3, unet.config.projection_class_embeddings_input_dim)
with torch.inference_mode():
    ends, done = time.monotonic() + float(sys.argv[1]), 0
    begun = time.monotonic()
    while time.monotonic() < ends:
        unet(noisy, 500, encoder_hidden_states=states, class_labels=labels)
        done += 1
    print(done / (time.monotonic() - begun))
"""


def count() -> None:
    """Keep a core busy."""
    number = 0
    while True:
        number += 1


def passes(spins: int | None, seconds: float) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = str(spins)
    command = [sys.executable, "-c", PASSES, str(seconds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--busy", type=int, nargs="+", default=[0, 4])
    options.add_argument("--spins", type=int, nargs="+", default=[0, 1000, 10_000, 100_000])
    options.add_argument("--seconds", type=float, default=20)
    given = options.parse_args()
    for busy in given.busy:
        others = [get_context("spawn").Process(target=count, daemon=True) for _ in range(busy)]
        for other in others:
            other.start()
        for spins in (None, *given.spins):
            rate = passes(spins, given.seconds)
            said = "unset" if spins is None else spins
            print(f"{busy} busy, {said} spins: {rate:.2f} passes a second", flush=True)
        for other in others:
            other.kill()


if __name__ == "__main__":
    main()

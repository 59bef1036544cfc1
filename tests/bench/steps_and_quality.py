"""Sampling steps against quality and time, on real training images (never the test images).

    python tests/bench/steps_and_quality.py --train TRAIN.csv [--each 40] [--ways unipc:10]

TRAIN.csv is that of tests/bench/evaluation_set.py. For each way the same prompts and seeds of four
modalities are drawn; KID and coverage by evaluation's encoder against as many training images, and
the seconds an image in batches of 16. The first line is real images against other real images.
OCT is left out: it has too few.
"""

import argparse
import csv
import itertools
import random
import time
from pathlib import Path

import numpy as np

from medgen.data.images import load_square
from medgen.evaluation.distances import kernel_distance, neighbourhood_scores
from medgen.evaluation.encoder import bundled_encoder
from medgen.generator.backends import load_generator
from medgen.graphs.generate import conditioning_of
from medgen.records import Request
from medgen.settings import settings

PROMPTS = {
    "Brain MRI": ["glioma, brain MRI", "meningioma, brain MRI", "pituitary tumor, brain MRI",
                  "no tumor, brain MRI"],
    "Chest CT": ["lung adenocarcinoma, chest CT", "squamous cell carcinoma, chest CT",
                 "large cell lung carcinoma, chest CT", "normal chest CT"],
    "Chest X-ray": ["normal chest, chest X-ray of a child", "normal chest, chest X-ray of an adult",
                    "bacterial pneumonia, chest X-ray of a child",
                    "COVID-19 pneumonia, chest X-ray of an adult"],
    "Fundus": ["normal, fundus photograph", "glaucoma, fundus photograph",
               "cataract, fundus photograph"],
}  # fmt: skip
WAYS = ("dpmsolver++:20", "unipc:20", "unipc:14", "unipc:10", "unipc:7")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--train", type=Path, required=True)
    arguments.add_argument("--each", type=int, default=40)
    arguments.add_argument("--seed", type=int, default=500)
    arguments.add_argument("--ways", nargs="*", default=WAYS)
    given = arguments.parse_args()
    with given.train.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    encoder, chance = bundled_encoder(), random.Random(given.seed)
    real = {}
    for modal in PROMPTS:
        paths = [given.train.parent / row["path"] for row in rows if row["modal"] == modal]
        chosen = chance.sample(paths, min(len(paths), 300))
        real[modal] = encoder(np.stack([load_square(path, 256) for path in chosen]))
        half = len(chosen) // 2
        report("real", modal, real[modal][:half], real[modal][half:])
    asked = {
        modal: [
            conditioning_of(Request(prompt=prompt, seed=given.seed), raw=False)[1].model_copy(
                update={"seed": given.seed + number}
            )
            for number, prompt in zip(range(given.each), itertools.cycle(prompts))
        ]
        for modal, prompts in PROMPTS.items()
    }
    for way in given.ways:
        sampler, steps = way.split(":")
        changes = {"sampler": sampler, "steps": int(steps), "micro_batch": 16}
        generator = load_generator(settings().model_copy(update=changes))
        for modal, told in asked.items():
            started = time.monotonic()
            pictures = generator.sample(told)
            seconds = (time.monotonic() - started) / len(told)
            report(way, modal, real[modal], encoder(pictures), f", {seconds:.2f} s an image")


def report(way, modal, real, other, after=""):
    kid = kernel_distance(real, other)
    coverage = neighbourhood_scores(real, other)["coverage"]
    print(f"{way} {modal}: KID {kid:.3f}, coverage {coverage:.3f}{after}", flush=True)


if __name__ == "__main__":
    main()

"""What the bundled autoencoder's blur alone does to the panel's verdicts on real test images.

Run as `python tests/bench/panel_through_autoencoder.py AUTOENCODER`; needs ../shared/data. Each
image is verified as it is and after encoding and decoding; a drawn image is never sharper.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from medgen.agents.verifier import Panel
from medgen.data.images import load_square
from medgen.generator.autoencoder import CompactAutoencoder
from medgen.records import Finding, Plan

DATA = Path(__file__).parents[3] / "shared" / "data"
ASKED = {
    ("nickparvar_tumor", "glioma"): "glioma",
    ("radiography_adult", "normal"): "normal chest",
    ("kermany_pneumonia", "bacterial pneumonia"): "pneumonia",
    ("eye4class", "cataract"): "cataract",
    ("lung_cancer_filtered", "lung adenocarcinoma"): "lung adenocarcinoma",
    ("srf_bern", "unlabelled"): "subretinal fluid",
}


def main(autoencoder: str) -> None:
    """Print one line a source for the images and one for their reconstructions."""
    model = CompactAutoencoder.from_pretrained(autoencoder).eval()
    with (DATA / "manifest.csv").open(newline="") as stream:
        test = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    draws, panel = np.random.default_rng(0), Panel.load()
    for (source, label), finding in ASKED.items():
        rows = [row for row in test if (row["source"], row["label"]) == (source, label)]
        chosen = draws.permutation(len(rows))[:10]
        images = np.stack([load_square(DATA / rows[i]["path"], 256) for i in chosen])
        with torch.inference_mode():
            decoded = model(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
        decoded = (decoded.clamp(-1, 1) + 1).mul(127.5).round().byte().permute(0, 2, 3, 1)
        plan = Plan(prompt=finding, modality=rows[0]["modal"], findings=[Finding(finding=finding)])
        for name, versions in (("as it is", images), ("decoded", decoded.numpy())):
            answers = [panel.verify(image, plan) for image in versions]
            verdicts = Counter(answer.findings[0].verdict for answer in answers)
            rejections = Counter(line for answer in answers for line in answer.rejections)
            problems = Counter(line for answer in answers for line in answer.quality.problems)
            print(source, finding, name, *map(dict, (verdicts, rejections, problems)), sep=" | ")


if __name__ == "__main__":
    main(sys.argv[1])

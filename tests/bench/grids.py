"""A 4x4 grid of unselected drawings for each modality, and what evaluation's reader says of 64.

Run by hand: `python tests/bench/grids.py --out docs/images --samples 64 --seed 200`. The grid's
columns are the prompts below, each drawn as `medgen generate` does; nothing is picked.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from medgen.agents.state import noise_seed
from medgen.data.images import png_bytes, write_atomic
from medgen.evaluation import reader
from medgen.generator.backends import load_generator
from medgen.graphs.generate import conditioning_of
from medgen.records import Request
from medgen.settings import settings

PROMPTS = {
    "chest_xray": (
        "normal heart size, chest X-ray",
        "cardiomegaly, chest X-ray",
        "COVID-19 pneumonia, chest X-ray",
        "chest X-ray of a child: bacterial pneumonia",
    ),
    "chest_ct": (
        "chest CT, lung adenocarcinoma",
        "chest CT, squamous cell lung carcinoma",
        "chest CT, large cell lung carcinoma",
        "normal chest CT",
    ),
    "brain_mri": (
        "brain MRI, glioma",
        "brain MRI, meningioma",
        "brain MRI, pituitary tumor",
        "brain MRI, no brain tumor",
    ),
    "fundus": (
        "fundus, normal fundus",
        "fundus, glaucoma",
        "fundus, cataract",
        "fundus, hard exudates",
    ),
    "oct": (
        "OCT, subretinal fluid",
        "OCT, no subretinal fluid",
        "OCT, diabetic macular edema",
        "OCT",
    ),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--samples", type=int, default=64)
    arguments.add_argument("--seed", type=int, default=200)
    arguments.add_argument("--only", choices=PROMPTS)
    options = arguments.parse_args()
    generator = load_generator(settings())
    for name, prompts in PROMPTS.items():
        if options.only and name != options.only:
            continue
        asks = []
        for index in range(max(16, options.samples)):
            _, told = conditioning_of(Request(prompt=prompts[index % 4]), False)
            seed = noise_seed(options.seed, index, 1, 0)
            asks.append(told.model_copy(update={"seed": seed}))
        pictures = generator.sample(asks)
        rows = [np.concatenate(list(pictures[start : start + 4]), 1) for start in range(0, 16, 4)]
        small = Image.fromarray(np.concatenate(rows, 0)).resize(
            (768, 768), Image.Resampling.LANCZOS
        )
        tags = {"Prompts (columns)": " | ".join(prompts), "Generator": generator.name}
        write_atomic(options.out / f"grid_{name}.png", png_bytes(np.asarray(small), tags))
        readings = reader.read(pictures[: options.samples])
        agreed = [r.modality == a.modality for r, a in zip(readings, asks, strict=False)]
        print(
            json.dumps(
                {
                    "modality": asks[0].modality,
                    "n": len(agreed),
                    "agreement": round(float(np.mean(agreed)), 3),
                    "generator": generator.name,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()

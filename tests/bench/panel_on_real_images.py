"""What the panel says of real held-out images, asked for what they show and for what they do not.

Run as `python tests/bench/panel_on_real_images.py [IMAGES]`; needs ../shared/data. Prints one line
a source and label: verdicts on the true finding and on a wrong one of the same source.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from medgen.agents.verifier import Panel
from medgen.data.images import load_square
from medgen.records import Finding, Plan

DATA = Path(__file__).parents[3] / "shared" / "data"
# source, age group, label -> (true finding, wrong finding)
ASKED = {
    ("nickparvar_tumor", None): {
        "glioma": ("glioma", "meningioma"),
        "meningioma": ("meningioma", "pituitary tumor"),
        "pituitary tumor": ("pituitary tumor", "glioma"),
        "no tumor": ("no brain tumor", "brain tumor"),
    },
    ("kermany_pneumonia", "child"): {
        "normal": ("normal chest", "pneumonia"),
        "bacterial pneumonia": ("bacterial pneumonia", "viral pneumonia"),
        "viral pneumonia": ("viral pneumonia", "normal chest"),
    },
    ("radiography_adult", None): {
        "normal": ("normal chest", "COVID-19 pneumonia"),
        "COVID-19": ("COVID-19 pneumonia", "normal chest"),
    },
    ("eye4class", None): {
        "glaucoma": ("glaucoma", "cataract"),
        "cataract": ("cataract", "glaucoma"),
    },
    ("lung_cancer_filtered", None): {
        "lung adenocarcinoma": ("lung adenocarcinoma", "squamous cell lung carcinoma"),
        "squamous cell lung carcinoma": ("squamous cell lung carcinoma", "lung adenocarcinoma"),
    },
}


def main(count: int) -> None:
    """Print the table for up to `count` test images a label."""
    with (DATA / "manifest.csv").open(newline="") as stream:
        test = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    panel = Panel.load()
    for (source, age_group), labels in ASKED.items():
        for label, findings in labels.items():
            rows = [row for row in test if (row["source"], row["label"]) == (source, label)]
            order = np.random.default_rng(0).permutation(len(rows))[:count]
            images = [load_square(DATA / rows[i]["path"], 256) for i in order]
            said = []
            for finding in findings:
                plan = Plan(
                    prompt=finding,
                    modality=rows[0]["modal"],
                    findings=[Finding(finding=finding)],
                    age_group=age_group,
                )
                answers = [panel.verify(image, plan, generated=False) for image in images]
                verdicts = Counter(a.findings[0].verdict for a in answers)
                rejected = sum(bool(a.rejections) for a in answers)
                margin = [
                    a.alignment.value > a.alignment.expected[0] for a in answers if a.alignment
                ]
                said.append(
                    f"{finding}: {verdicts['confirmed']} confirmed, "
                    f"{verdicts['contradicted']} contradicted, {verdicts['abstain']} abstain, "
                    f"{rejected} rejected, margin large enough in {sum(margin)} of {len(margin)}, "
                    f"score {np.mean([a.score for a in answers]):.2f}"
                )
            print(f"{source} | {label} | {len(images)} | {said[0]} | {said[1]}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)

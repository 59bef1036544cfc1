"""Tables for a whole evaluation: real test rows, training rows, and drawings of the same classes.

Run by hand: `python tests/bench/evaluation_set.py --data ../shared/data --out ../evalset`. Every
class of every source with at least eight test images is drawn as often as it occurs among the
test images (at most `--most` times), in three wordings of our own, none of them a training
caption; `control.csv` holds films of requested cardiothoracic ratios and of requested sides.
Nothing is picked; a stopped run goes on.
"""

import argparse
import csv
import itertools
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from medgen.agents.state import noise_seed
from medgen.data.images import save_synthetic_png
from medgen.generator.backends import load_generator
from medgen.graphs.generate import conditioning_of
from medgen.records import Request
from medgen.settings import settings

CHILD = ("{}, chest X-ray of a child", "pediatric chest X-ray: {}", "child, {}, chest radiograph")
ADULT = ("{}, chest X-ray of an adult", "adult chest X-ray: {}", "adult, {}, chest radiograph")
BRAIN = ("{}, brain MRI", "brain MRI: {}", "axial MRI of the brain, {}")
CT = ("{}, chest CT", "chest CT: {}", "CT of the chest, {}")
FUNDUS = ("{}, fundus photograph", "fundus: {}", "retinal photograph, {}")
OCT = ("{}, OCT", "OCT: {}", "optical coherence tomography, {}")
# (source, label) -> wordings of the finding, templates
CLASSES = {
    ("kermany_pneumonia", "normal"): ("normal chest", CHILD),
    ("kermany_pneumonia", "bacterial pneumonia"): ("bacterial pneumonia", CHILD),
    ("kermany_pneumonia", "viral pneumonia"): ("viral pneumonia", CHILD),
    ("radiography_adult", "normal"): ("normal chest", ADULT),
    ("radiography_adult", "COVID-19"): ("COVID-19 pneumonia", ADULT),
    ("nickparvar_tumor", "glioma"): ("glioma", BRAIN),
    ("nickparvar_tumor", "meningioma"): ("meningioma", BRAIN),
    ("nickparvar_tumor", "pituitary tumor"): ("pituitary tumor", BRAIN),
    ("nickparvar_tumor", "no tumor"): ("no tumor", BRAIN),
    ("iq_oth_nccd", "normal"): ("normal chest CT", CT),
    ("iq_oth_nccd", "benign lung nodule case"): ("benign lung nodule", CT),
    ("iq_oth_nccd", "lung cancer case"): ("lung cancer", CT),
    ("lung_cancer_filtered", "lung adenocarcinoma"): ("lung adenocarcinoma", CT),
    ("lung_cancer_filtered", "squamous cell lung carcinoma"): ("squamous cell carcinoma", CT),
    ("lung_cancer_filtered", "large cell lung carcinoma"): ("large cell lung carcinoma", CT),
    ("eye4class", "normal"): ("normal", FUNDUS),
    ("eye4class", "glaucoma"): ("glaucoma", FUNDUS),
    ("eye4class", "cataract"): ("cataract", FUNDUS),
    ("hei_med", "no exudates or microaneurysms"): ("no hard exudates", FUNDUS),
    ("srf_bern", "unlabelled"): ("retina", OCT),
}
# OCT has 16 test images, 4 of them labelled: both classes are drawn all the same.
EXTRA = {
    ("srf_bern", "subretinal fluid", "OCT"): ("subretinal fluid", OCT, 16),
    ("srf_bern", "no subretinal fluid", "OCT"): ("no subretinal fluid", OCT, 16),
}
RATIOS = np.linspace(0.38, 0.62, 64)
SIDED = ("right lung pneumonia, chest X-ray", "left lung pneumonia, chest X-ray")
COLUMNS = ("path", "text", "modal", "label", "group", "source", "findings", "cardiothoracic_ratio")


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


def real_tables(data, out):
    """real.csv and train.csv, image paths relative to `out`; returns the test rows."""
    with (data / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["path"] = os.path.relpath((data / row["path"]).resolve(), out)
    for name, split in (("real", "test"), ("train", "train")):
        write_table(out / f"{name}.csv", [row for row in rows if row["split"] == split])
    return [row for row in rows if row["split"] == "test"]


def tasks(test, most):
    """(table, file, prompt, row) of every drawing."""
    counts = Counter((row["source"], row["label"], row["modal"]) for row in test)
    wanted = {
        key: (*CLASSES[key[:2]], min(most, count))
        for key, count in sorted(counts.items())
        if key[:2] in CLASSES
    }
    for (source, label, _), (words, templates, count) in (wanted | EXTRA).items():
        for index in range(count):
            prompt = templates[index % len(templates)].format(words)
            name = f"{source}_{label.replace(' ', '_')}_{index:03d}.png"
            yield "synthetic", name, prompt, {"source": source, "label": label}
    for index, ratio in enumerate(RATIOS):
        row = {"cardiothoracic_ratio": f"{ratio:.4f}"}
        prompt = f"PA chest X-ray of an adult, cardiothoracic ratio {ratio:.2f}"
        yield "control", f"ratio_{index:03d}.png", prompt, row
    for index, prompt in itertools.product(range(32), SIDED):
        yield "control", f"{prompt.split()[0]}_{index:03d}.png", prompt, {}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--most", type=int, default=96)
    arguments.add_argument("--seed", type=int, default=300)
    arguments.add_argument("--batch", type=int, default=8)
    given = arguments.parse_args()
    out = given.out.resolve()
    listed = list(enumerate(tasks(real_tables(given.data, out), given.most)))
    # One class after another, an image each: a stopped run is a smaller set of the same mix.
    listed.sort(key=lambda one: (one[1][1].rsplit("_", 1)[1], one[0]))
    generator = load_generator(settings())
    tables = {"synthetic": [], "control": []}
    for start in range(0, len(listed), given.batch):
        part, pending = listed[start : start + given.batch], []
        for number, (table, name, prompt, row) in part:
            plan, told = conditioning_of(Request(prompt=prompt, seed=given.seed), raw=False)
            told = told.model_copy(update={"seed": noise_seed(given.seed, number, 1, 0)})
            path = out / table / name
            if not path.exists():
                pending.append((path, prompt, told))
            findings = json.dumps([one.model_dump(mode="json") for one in plan.findings])
            tables[table].append(
                {
                    "path": f"{table}/{name}",
                    "text": prompt,
                    "modal": told.modality,
                    "group": prompt,
                    "findings": findings,
                    **row,
                }
            )
        if pending:
            pictures = generator.sample([told for _, _, told in pending])
            for (path, prompt, _), pixels in zip(pending, pictures, strict=True):
                save_synthetic_png(path, pixels, {"Prompt": prompt})
        for table, rows in tables.items():
            write_table(out / f"{table}.csv", rows)
        print(f"{min(start + given.batch, len(listed))} of {len(listed)}", flush=True)


if __name__ == "__main__":
    main()

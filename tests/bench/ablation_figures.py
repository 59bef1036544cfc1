"""What the ablation's rows draw, by evaluation's scorers: the same requests and noise for each row.

    python tests/bench/ablation_figures.py --rows FOLDER --data ../shared/data [--seeds 0 1 2]

FOLDER is that of tests/bench/ablation.py. For each row and seed every request below is drawn
(nothing picked; a stopped run goes on), and set against the validation fold's real images, so that
the test split is not used up by choosing: KID and coverage by evaluation's encoder, balanced
accuracy of the findings asked for by evaluation's reader, and the difference in mean cardiothoracic
ratio between films asked for with an enlarged and with a normal heart, by evaluation's segmenter.
Prints a Markdown table: mean of the seeds and, in brackets, their least and greatest; then each
row's KID against row0's and row4's, seed by seed, with a paired interval (Student's t).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from medgen.data.images import write_atomic
from medgen.evaluation import chest
from medgen.evaluation.distances import kernel_distance, neighbourhood_scores
from medgen.evaluation.encoder import bundled_encoder
from medgen.evaluation.paired import Drawn, disagreement
from medgen.graphs.rlhf_config import EvaluationStage, SynthesisStage
from medgen.graphs.rlhf_drawing import draw, tasks_of
from medgen.graphs.rlhf_report import real_images

REQUESTS = {
    "Brain MRI": ("glioma, brain MRI", "meningioma, brain MRI", "pituitary tumor, brain MRI",
                  "no tumor, brain MRI"),
    "Chest CT": ("lung adenocarcinoma, chest CT", "squamous cell carcinoma, chest CT",
                 "large cell lung carcinoma, chest CT", "normal chest CT"),
    "Chest X-ray": ("normal chest, chest X-ray of a child", "normal chest, chest X-ray of an adult",
                    "bacterial pneumonia, chest X-ray of a child",
                    "viral pneumonia, chest X-ray of a child",
                    "COVID-19 pneumonia, chest X-ray of an adult"),
    "Fundus": ("normal, fundus photograph", "glaucoma, fundus photograph",
               "cataract, fundus photograph"),
}  # fmt: skip
HEARTS = ("cardiomegaly, chest X-ray of an adult, PA view",
          "normal heart size, chest X-ray of an adult, PA view")  # fmt: skip
OF_A_MODALITY, OF_HEARTS = 40, 10  # drawings a seed: of each modality together, of each heart
RATIO = "ratio, enlarged less normal"


def stage(seed, steps):
    """What is drawn with one seed."""
    prompts = [
        {"prompt": prompt, "modality": modality, "images": -(-OF_A_MODALITY // len(requests))}
        for modality, requests in REQUESTS.items()
        for prompt in requests
    ]
    prompts += [
        {"prompt": prompt, "modality": "Chest X-ray", "images": OF_HEARTS} for prompt in HEARTS
    ]
    return SynthesisStage(prompts=prompts, steps=steps, seed=1000 + 100 * seed)


def figures(table, real, encoder):
    """Every figure of one row and seed, by name; None where it cannot be measured."""
    hearts = [table.where(lambda row, asked=asked: row.text == asked) for asked in HEARTS]
    others = table.where(lambda row: row.text not in HEARTS)
    drawn, found = Drawn(others), {}
    for modality in REQUESTS:
        own = others.where(lambda row, m=modality: row.modal == m)
        features = np.concatenate([encoder(batch) for batch in own.batches(32)])
        found[f"KID, {modality}"] = kernel_distance(real[modality], features)
        scores = neighbourhood_scores(real[modality], features)
        found[f"coverage, {modality}"] = scores["coverage"]
        rows = np.array([row.modal == modality for row in others.rows])
        wrong = disagreement(drawn.codes(modality)[rows])
        found[f"agreement, {modality}"] = 1 - wrong if np.isfinite(wrong) else None
    for metric in ("KID", "coverage", "agreement"):
        own = [found[f"{metric}, {modality}"] for modality in REQUESTS]
        known = [value for value in own if value is not None]
        found[f"{metric}, mean"] = float(np.mean(known)) if known else None
    ratios = [
        [r for batch in one.batches(32) for r in chest.cardiothoracic_ratios(batch)]
        for one in hearts
    ]
    measured = [[r for r in one if r is not None] for one in ratios]
    found["hearts measurable"] = sum(map(len, measured)) / sum(map(len, ratios))
    enough = all(len(one) >= OF_HEARTS // 2 for one in measured)
    found[RATIO] = float(np.mean(measured[0]) - np.mean(measured[1])) if enough else None
    return found


def floor_of(features, groups):
    """Mean KID of one half of the real images against the other, groups whole, ten halvings."""
    chance, names = np.random.default_rng(0), np.unique(groups)
    found = []
    for _ in range(10):
        first = np.isin(groups, chance.permutation(names)[: len(names) // 2])
        found.append(kernel_distance(features[first], features[~first]))
    return float(np.mean(found))


def cell(values):
    """Mean and, in brackets, least and greatest."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    missing = f", {len(known)} of {len(values)}" if len(known) < len(values) else ""
    return f"{np.mean(known):.2f} ({min(known):.2f} to {max(known):.2f}{missing})"


def paired(first, other):
    """Mean difference of seeds and its 95 % interval."""
    gaps = np.array(other) - np.array(first)
    half = student.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
    return f"{gaps.mean():+.2f} ({gaps.mean() - half:+.2f} to {gaps.mean() + half:+.2f})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=Path, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--only", nargs="*", help="names of rows; all finished ones by default")
    given = arguments.parse_args()
    fold = EvaluationStage(real=given.data / "manifest.csv", fold="validation")
    encoder, real, floor = bundled_encoder(), {}, {}
    for modality in REQUESTS:
        table = real_images(fold, [modality])
        real[modality] = np.concatenate([encoder(batch) for batch in table.batches(32)])
        floor[modality] = floor_of(real[modality], table.groups)
    found = {}
    for folder in sorted(given.rows.glob("row*")):
        if not (folder / "finished.json").is_file() or (
            given.only and folder.name not in given.only
        ):
            continue
        for seed in given.seeds:
            kept = folder / f"figures-{seed}.json"
            if not kept.is_file():
                asked = stage(seed, given.steps)
                images = folder / f"drawn-{seed}"
                table = draw(
                    asked, tasks_of(asked), images, folder / "generator", None, lambda *_: None
                )
                write_atomic(kept, json.dumps(figures(table, real, encoder), indent=1) + "\n")
                print(f"{folder.name}, seed {seed}", flush=True)
            found.setdefault(folder.name, []).append(json.loads(kept.read_text()))
    columns = [f"KID, {modality}" for modality in (*REQUESTS, "mean")]
    columns += ["coverage, mean"]
    columns += [f"agreement, {modality}" for modality in REQUESTS]
    columns += [RATIO, "hearts measurable"]
    print("| row | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    for row, seeds in found.items():
        print(f"| {row} | " + " | ".join(cell([one[c] for one in seeds]) for c in columns) + " |")
    halves = " | ".join(f"{value:.2f}" for value in floor.values())
    print(f"| real, one half against the other | {halves} | {np.mean(list(floor.values())):.2f} |")
    if len(given.seeds) < 2:
        return
    for against in ("row0_minim", "row4_structured"):
        if against not in found:
            continue
        print(f"\nKID less that of {against}\n| row | {' | '.join((*REQUESTS, 'mean'))} |")
        print("| --- |" + " --- |" * (len(REQUESTS) + 1))
        for row, seeds in found.items():
            keys = [f"KID, {modality}" for modality in (*REQUESTS, "mean")]
            gaps = [paired([o[k] for o in found[against]], [o[k] for o in seeds]) for k in keys]
            if row != against:
                print(f"| {row} | " + " | ".join(gaps) + " |")


if __name__ == "__main__":
    main()

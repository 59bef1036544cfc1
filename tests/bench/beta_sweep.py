"""Diffusion-DPO at several betas on one log: what is learned, and what it does to drawings.

    python tests/bench/beta_sweep.py --out FOLDER [--betas 500 1000 2000 5000] [--seed 0]

Log, real images, rank and modalities are those of tests/bench/steered_round.yaml, which says where
they come from. Pairs have one noise, and winners may not get worse (`anchor`). Each adapter's
held-out checks are printed, then what it draws for wordings that the log does not have: by
evaluation's reader, and KID against the validation fold. A stopped sweep goes on.
"""

import argparse
from pathlib import Path

import numpy as np
import yaml

from medgen.evaluation.distances import kernel_distance
from medgen.evaluation.encoder import bundled_encoder
from medgen.evaluation.paired import Drawn, disagreement
from medgen.feedback.policy import train_policy
from medgen.feedback.policy_config import PolicyConfig
from medgen.feedback.policy_run import read_checks
from medgen.graphs.rlhf_config import EvaluationStage, SynthesisStage
from medgen.graphs.rlhf_drawing import draw, tasks_of
from medgen.graphs.rlhf_report import real_images

ROUND = Path(__file__).with_name("steered_round.yaml")
PROMPTS = {
    "Fundus": ("a cataract, retinal photo", "normal fundus, retinal photo",
               "no cataract, retinal photo"),
    "Chest CT": ("adenocarcinoma of the lung, CT scan", "squamous cell lung carcinoma, CT scan"),
}  # fmt: skip
IMAGES, STEPS, NOISE = {"Fundus": 20, "Chest CT": 30}, 10, 78


def config_of(given, beta):
    """The policy training of one beta."""
    document = yaml.safe_load(ROUND.read_text(encoding="utf-8"))
    policy = document["policy"]
    del policy["reach"]
    return PolicyConfig.model_validate(
        {
            **policy,
            "log": document["log"],
            "out": given.out / f"beta-{beta:g}",
            "cache": given.cache or given.out / "cache",
            "seed": given.seed,
            "method": "dpo",
            "beta": beta,
            "anchor": 2.0,
            "same_noise": True,
            "steps": given.steps,
            "save_every": given.steps // 3,
            "condition_dropout": 0.1,
            "real": {**policy["real"], "share": 0.125, "weight": 0.3},
        }
    )


def figures(name, table, real, encoder):
    """A line of Markdown: disagreement, doubt and KID of each modality."""
    drawn, cells = Drawn(table), []
    doubts = drawn.doubts()
    for modality in PROMPTS:
        own = np.array([row.modal == modality for row in table.rows])
        part = table.where(lambda row, m=modality: row.modal == m)
        features = np.concatenate([encoder(batch) for batch in part.batches(32)])
        wrong, doubt = disagreement(drawn.codes(modality)[own]), float(np.nanmean(doubts[own]))
        kid = kernel_distance(real[modality], features)
        cells.append(f"{wrong:.3f}, {doubt:.3f}, {kid:.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--cache", type=Path, help="of latents; in the folder by default")
    arguments.add_argument("--betas", type=float, nargs="+", default=[500, 1000, 2000, 5000])
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--steps", type=int, default=90)
    given = arguments.parse_args()
    stage = SynthesisStage(
        prompts=[
            {"prompt": prompt, "modality": modality, "images": IMAGES[modality]}
            for modality, prompts in PROMPTS.items()
            for prompt in prompts
        ],
        steps=STEPS,
        seed=NOISE,
    )
    tasks, encoder, real = tasks_of(stage), bundled_encoder(), {}
    table = yaml.safe_load(ROUND.read_text(encoding="utf-8"))["evaluation"]["real"]
    for modality in PROMPTS:
        known = real_images(EvaluationStage(real=table, fold="validation"), [modality])
        real[modality] = np.concatenate([encoder(batch) for batch in known.batches(32)])
    adapters = {"none": None}
    for beta in given.betas:
        config = config_of(given, beta)
        adapters[f"{beta:g}"] = train_policy(config)
        for check in read_checks(config.out):
            print(f"beta {beta:g}: {check}", flush=True)
    print(f"| beta | {' | '.join(f'{m}: disagreement, doubt, KID' for m in PROMPTS)} |")
    print("| --- | " + "--- | " * len(PROMPTS))
    for name, adapter in adapters.items():
        drawn = draw(stage, tasks, given.out / f"drawn-{name}", None, adapter, lambda *_: None)
        print(figures(name, drawn, real, encoder), flush=True)


if __name__ == "__main__":
    main()

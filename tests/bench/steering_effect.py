"""What gradient guidance changes, as the verifier's reader and as evaluation's sees it.

    python tests/bench/steering_effect.py --each 12 --seed 900 --sheet FILE.png

The same noise drawn plainly and steered, for each finding; printed are the mean probabilities of
the asked finding by the verifier's reader, which judges in the loop, and by evaluation's (neither
steers), the mean change of a pixel, how many evaluation's reader sees as asked, and how many the
panel accepts and rejects. The sheet has four of each, plain over steered. With `--real
../shared/data` also the KID by evaluation's encoder against up to as many real training images of
that label, plain and steered. `--composed` draws what the agent would tell the generator, and
`--push` steers in another way: until which time, by which step, sure at which probability, on how
many views (`medgen.generator.steering.Push`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from medgen.agents import composer, retriever
from medgen.data.images import load_square, save_synthetic_png
from medgen.evaluation.distances import kernel_distance
from medgen.evaluation.encoder import bundled_encoder
from medgen.evaluation.reader import read
from medgen.generator.backends import load_generator
from medgen.generator.compact import CompactGenerator
from medgen.generator.steering import Push
from medgen.graphs.agent import Agent
from medgen.graphs.collaborators import shared_collaborators
from medgen.measure.reader import bundled_reader
from medgen.measure.train_reader import read_table
from medgen.records import Conditioning
from medgen.settings import settings

ASKED = (
    ("meningioma", "Brain MRI", "brain_tumor"),
    ("glioma", "Brain MRI", "brain_tumor"),
    ("pituitary tumor", "Brain MRI", "brain_tumor"),
    ("cataract", "Fundus", "fundus_disease"),
    ("glaucoma", "Fundus", "fundus_disease"),
    ("viral pneumonia", "Chest X-ray", "child_film"),
    ("lung adenocarcinoma", "Chest CT", "ct_histology"),
    ("squamous cell lung carcinoma", "Chest CT", "ct_histology"),
)
SHOWN = 4


def real_images(data: Path, modality: str, label: str, most: int) -> np.ndarray:
    """Up to `most` real training images of a label, (n, 256, 256, 3) uint8, drawn with seed 0."""
    rows = [
        row
        for row in read_table(data / "manifest.csv")
        if (row["modal"], row["label"], row["split"]) == (modality, label, "train")
    ]
    chosen = np.random.default_rng(0).permutation(len(rows))[:most]
    return np.stack([load_square(data / rows[index]["path"], 256) for index in chosen])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--each", type=int, default=12)
    options.add_argument("--seed", type=int, default=900)
    options.add_argument("--sheet", type=Path)
    options.add_argument("--findings", nargs="*", help="all when left out")
    options.add_argument("--composed", action="store_true")
    options.add_argument("--push", type=float, nargs=4, metavar=("UNTIL", "STEP", "SURE", "VIEWS"))
    options.add_argument("--real", type=Path, help="the folder of manifest.csv")
    given = options.parse_args()
    generator = load_generator(settings().model_copy(update={"micro_batch": 4}))
    assert isinstance(generator, CompactGenerator)
    if given.push:
        until, step, sure, views = given.push
        generator.steering.push = Push(until, step, sure, int(views))
    minds, agent, rows = shared_collaborators(), Agent(), []
    for finding, modality, head in ASKED:
        if given.findings and finding not in given.findings:
            continue
        age = {"age_group": "child"} if head == "child_film" else {}
        plan = agent.plan(f"{finding}, {'child, ' if age else ''}{modality}")
        told = Conditioning(prompt=f"{finding}, {modality}", modality=modality, structured=age)
        if given.composed:
            sought = minds.settings.retrieval
            told = composer.compose(
                plan, retriever.retrieve(plan, minds.store, minds.cases, sought)
            )
        plain = [
            told.model_copy(update={"seed": given.seed + number}) for number in range(given.each)
        ]
        steered = [one.model_copy(update={"aims": {head: [finding]}}) for one in plain]
        before, after = generator.sample(plain), generator.sample(steered)
        own = [
            np.mean([one.heads[head][finding] for one in bundled_reader().read(drawn)])
            for drawn in (before, after)
        ]
        seen = [[one.findings.get(finding) for one in read(drawn)] for drawn in (before, after)]
        judged = [
            pair for pair in zip(*seen, strict=True) if pair[0] is not None and pair[1] is not None
        ]
        held_out = (
            f"{np.mean([a for a, _ in judged]):.2f} -> {np.mean([b for _, b in judged]):.2f} "
            f"({len(judged)} judged)"
            if judged
            else "not judged"
        )
        moved = np.abs(before.astype(float) - after.astype(float)).mean()
        critiques = [
            [minds.panel.verify(image, plan) for image in drawn] for drawn in (before, after)
        ]
        taken = [sum(one.accepted is True for one in both) for both in critiques]
        turned_down = [sum(bool(one.rejections) for one in both) for both in critiques]
        as_asked = [sum((value or 0) >= 0.5 for value in values) for values in seen]
        fidelity = ""
        if given.real is not None:
            real = real_images(given.real, modality, finding, given.each)
            known = bundled_encoder()(real)
            kids = [
                kernel_distance(known, bundled_encoder()(drawn[: len(real)]))
                for drawn in (before, after)
            ]
            fidelity = f", KID against {len(real)} real ones {kids[0]:.3f} -> {kids[1]:.3f}"
        print(
            f"{finding}: verifier's reader {own[0]:.2f} -> {own[1]:.2f}, evaluation's reader "
            f"{held_out}, pixels moved by {moved:.1f}; of {given.each} seen as asked "
            f"{as_asked[0]} -> {as_asked[1]}, accepted {taken[0]} -> {taken[1]}, "
            f"rejected {turned_down[0]} -> {turned_down[1]}{fidelity}",
            flush=True,
        )
        rows += [np.concatenate(list(drawn[:SHOWN]), axis=1) for drawn in (before, after)]
    if given.sheet is not None:
        save_synthetic_png(given.sheet, np.concatenate(rows))


if __name__ == "__main__":
    main()

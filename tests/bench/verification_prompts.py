"""The specifications behind `verification_pays.py`: prompts by class, in three wordings, shuffled.

Run by hand: `python tests/bench/verification_prompts.py ../specs`, then `medgen synthesize` each.
Classes that the generator often misses have more tasks, so that enough of them are accepted.
"""

import random
import sys
from pathlib import Path

BRAIN = ("{}, brain MRI", "brain MRI: {}", "axial MRI of the brain, {}")
FUNDUS = ("{}, fundus photograph", "fundus: {}", "retinal photograph, {}")
# name: modality, wordings, seed, tasks a class, more lines
SETS = {
    "brain": (
        "Brain MRI",
        BRAIN,
        11,
        {"glioma": 60, "meningioma": 160, "pituitary tumor": 80, "no tumor": 60},
        "",
    ),
    "brain2": (
        "Brain MRI",
        BRAIN,
        12,
        {"glioma": 60, "meningioma": 400, "pituitary tumor": 130, "no tumor": 60},
        "",
    ),
    "fundus": (
        "Fundus",
        FUNDUS,
        14,
        {"cataract": 420, "normal": 60},
        "thresholds: {unmeasured: keep}\n",
    ),
}


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, (modality, wordings, seed, classes, more) in SETS.items():
        rows = [
            (f"{label.replace(' ', '-')}-{number:03d}", wordings[number % 3].format(label))
            for label, count in classes.items()
            for number in range(count)
        ]
        random.Random(seed).shuffle(rows)
        lines = "".join(f'{task},"{prompt}",{modality}\n' for task, prompt in rows)
        (out / f"{name}.csv").write_text(f"id,prompt,modality\n{lines}")
        (out / f"{name}.yaml").write_text(
            f"name: {name.rstrip('2')} utility\nseed: {seed}\ntable: {name}.csv\n{more}"
            "control_share: 0\nsteps: 12\nbudget: {rounds: 1, candidates: 2}\n"
        )


if __name__ == "__main__":
    main()

"""False accepts of the panel: real images with right and with wrong prompts of the same source.

`python tests/bench/calibrate_thresholds.py val PIXELS` judges the validation fold and prints, for
each threshold set, the limits that accept at most the stated share of wrong requests of those
judged, by the upper end of its interval (for medgen/agents/verifier/panel.yaml).
`... test PIXELS [PLOT.png]` measures the sets as they stand on `split=test`: to be run once. PIXELS
are the table's images packed in its row order. Needs ../shared/data. One image is asked for its own
finding and for every other of its source; fundus images whose file names say the eye are asked for
the right and the wrong eye too.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from medgen.agents.verifier import Panel
from medgen.agents.verifier.cards import rules
from medgen.agents.verifier.evidence import Evidence
from medgen.agents.verifier.panel import judge
from medgen.measure.reader import bundled_reader
from medgen.measure.statistics import calibration_error, share_interval
from medgen.measure.train_reader import fold, read_table
from medgen.records import Finding, Plan

DATA = Path(__file__).parents[3] / "shared" / "data"
# By source: the finding that a label shows, and the age group of its films.
SHOWN = {
    "nickparvar_tumor": {
        "glioma": "glioma",
        "meningioma": "meningioma",
        "pituitary tumor": "pituitary tumor",
        "no tumor": "no brain tumor",
    },
    "kermany_pneumonia": {
        "normal": "normal chest",
        "bacterial pneumonia": "bacterial pneumonia",
        "viral pneumonia": "viral pneumonia",
    },
    "radiography_adult": {"normal": "normal chest", "COVID-19": "COVID-19 pneumonia"},
    "eye4class": {"normal": "normal fundus", "glaucoma": "glaucoma", "cataract": "cataract"},
    "hei_med": {
        "exudates": "hard exudates",
        "no exudates or microaneurysms": "no exudates or microaneurysms",
    },
    "lung_cancer_filtered": {
        "lung adenocarcinoma": "lung adenocarcinoma",
        "squamous cell lung carcinoma": "squamous cell lung carcinoma",
        "large cell lung carcinoma": "large cell lung carcinoma",
    },
    "iq_oth_nccd": {
        "lung cancer case": "lung cancer",
        "benign lung nodule case": "benign lung nodule",
        "normal": "normal chest CT",
    },
    "srf_bern": {
        "subretinal fluid": "subretinal fluid",
        "no subretinal fluid": "no subretinal fluid",
    },
}
AGES = {"kermany_pneumonia": "child", "radiography_adult": "adult"}
# False accepts and false rejections of those judged, by set. The upper end of the false accepts'
# interval meets its target; of the rejections a tenth of margin is kept.
TARGETS = {"strict": (0.05, 0.2), "balanced": (0.1, 0.2), "lenient": (0.2, 0.2)}
MARGIN = 0.9


def requests(row: dict[str, str]) -> list[tuple[Finding, bool]]:
    """What one image is asked for, and whether it is right."""
    shown = SHOWN[row["source"]]
    true = shown[row["label"]]
    asked = [(Finding(finding=name), name == true) for name in shown.values()]
    eye = re.search(r"_(left|right)$", Path(row["path"]).stem)
    if row["source"] == "eye4class" and eye is not None:
        for side in ("left", "right"):
            asked.append((Finding(finding=true, side=side), side == eye[1]))
    return asked


def judged_pairs(part: str, pixels: np.ndarray) -> list[dict]:
    """Every pair of the fold: pooled probability (None where nothing measured), right or not."""
    panel = Panel.load()
    rows = read_table(DATA / "manifest.csv")
    pairs = []
    for place, row in enumerate(rows):
        if fold(row) != part or row["label"] not in SHOWN.get(row["source"], {}):
            continue
        evidence = Evidence(np.array(pixels[place]), bundled_reader())
        for finding, right in requests(row):
            plan = Plan(
                prompt=finding.finding,
                modality=row["modal"],
                findings=[finding],
                age_group=AGES.get(row["source"]),
            )
            answer = judge(evidence, finding, plan, panel._checks)
            pairs.append(
                {
                    "source": row["source"],
                    "finding": finding.finding + (" (eye)" if finding.side else ""),
                    "right": right,
                    "probability": answer.probability if answer.finding.measurements else None,
                }
            )
    return pairs


def tally(pairs: list[dict], confirm: float, contradict: float) -> Counter:
    """Accepted, rejected and abstained, by whether the request was right."""
    counts: Counter = Counter()
    for pair in pairs:
        said = "abstained"
        if pair["probability"] is not None and pair["probability"] >= confirm:
            said = "accepted"
        elif pair["probability"] is not None and pair["probability"] <= contradict:
            said = "rejected"
        counts["right" if pair["right"] else "wrong", said] += 1
    return counts


def choose(pairs: list[dict], accepts: float, rejects: float) -> tuple[float, float] | None:
    """The limits that judge the most pairs with so few errors of both kinds."""
    best, most = None, -1
    for confirm in np.arange(0.51, 0.96, 0.01):
        for contradict in np.arange(0.05, 0.5, 0.01):
            counts = tally(pairs, confirm, contradict)
            wrong = counts["wrong", "accepted"] + counts["wrong", "rejected"]
            right = counts["right", "accepted"] + counts["right", "rejected"]
            if not wrong or share_interval(counts["wrong", "accepted"], wrong)[1] > accepts:
                continue
            if counts["right", "rejected"] > MARGIN * rejects * right:
                continue
            if wrong + right > most:
                best, most = (round(float(confirm), 2), round(float(contradict), 2)), wrong + right
    return best


def report(name: str, pairs: list[dict], confirm: float, contradict: float) -> None:
    """One line: shares of those judged with intervals, and abstentions."""
    counts = tally(pairs, confirm, contradict)
    words = []
    for kind, good in (("wrong", "rejected"), ("right", "accepted")):
        other = "accepted" if good == "rejected" else "rejected"
        judged = counts[kind, good] + counts[kind, other]
        low, high = share_interval(counts[kind, good], judged) if judged else (0, 1)
        share = f"{counts[kind, good] / judged:.3f} ({low:.3f}-{high:.3f})" if judged else "-"
        words.append(f"{kind}: {good} {share} of {judged}, abstained {counts[kind, 'abstained']}")
    print(f"| {name} | {confirm}/{contradict} | {' | '.join(words)} |", flush=True)


def reliability(pairs: list[dict], plot: str | None) -> None:
    """Bins of the probability that the image is as asked against how often it was, and the ECE."""
    known = [pair for pair in pairs if pair["probability"] is not None]
    chances = np.array([pair["probability"] for pair in known])
    right = np.array([float(pair["right"]) for pair in known])
    # Right and wrong requests weigh the same, else the many wrong ones set the base rate.
    weights = np.where(right == 1, 0.5 / right.sum(), 0.5 / (1 - right).sum())
    error, points = 0.0, []
    for low in np.arange(0, 1, 0.1):
        inside = (chances >= low) & (chances < low + 0.1 + (low > 0.85))
        if inside.any():
            mean = np.average(chances[inside], weights=weights[inside])
            share = np.average(right[inside], weights=weights[inside])
            error += weights[inside].sum() * abs(mean - share)
            points.append((mean, share))
            print(f"| {low:.1f}-{low + 0.1:.1f} | {inside.sum()} | {mean:.2f} | {share:.2f} |")
    sure = np.maximum(chances, 1 - chances)
    plain = calibration_error(sure, ((chances > 0.5) == (right == 1)).astype(float))
    print(f"expected calibration error: {error:.3f} (balanced), of the confidence {plain:.3f}")
    if plot:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(4, 4))
        axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
        axes.plot(*zip(*points, strict=True), marker="o")
        axes.set_xlabel("probability that the image is as asked")
        axes.set_ylabel("share that was, right and wrong requests weighing the same")
        figure.tight_layout()
        figure.savefig(plot, dpi=100)


def main(part: str, pixels: str, plot: str | None = None) -> None:
    """Calibrate on "val" or measure on "test"."""
    pairs = judged_pairs(part, np.load(pixels, mmap_mode="r"))
    presence = [pair for pair in pairs if not pair["finding"].endswith("(eye)")]
    print(f"{len(pairs)} pairs, {len(presence)} of presence")
    for name, targets in TARGETS.items():
        limits = rules().thresholds[name]
        found = (limits.confirm, limits.contradict)
        if part == "val":
            found = choose(presence, *targets) or found
        report(name, presence, *found)
    limits = rules().thresholds["balanced"]
    for key in ("source", "finding"):
        for value in sorted({pair[key] for pair in pairs}):
            chosen = [pair for pair in pairs if pair[key] == value]
            report(f"balanced, {value}", chosen, limits.confirm, limits.contradict)
    reliability(presence, plot)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Every check of the verifier: images, accuracy with its 95 % interval, shortcut audit, verdict.

`python tests/bench/verifier_table.py [ANATOMY_FOLDER]` prints Markdown from the cards; with the
folder of `medgen.measure.tabulate_anatomy` also how ratio, opacity and costophrenic depth do on the
small NIH films, by view, intervals by resampling patients (needs ../shared/data).
"""

import sys
from pathlib import Path

import numpy as np
import yaml

from medgen import measure
from medgen.agents.verifier.cards import anatomy_figures, opacity_card, reader_card
from medgen.measure.anatomy_card import anatomy_cards, read_values
from medgen.measure.statistics import auc
from medgen.measure.tabulate_anatomy import SMALL_FILMS
from medgen.measure.train_reader import read_table

DATA = Path(__file__).parents[3] / "shared" / "data"
WEIGHTS = Path(measure.__file__).parent / "weights"
# Value, whether more of it speaks for the label, label of the NIH films.
NIH = [
    ("cardiothoracic_ratio", True, "Cardiomegaly"),
    ("opacity", True, "Consolidation"),
    ("opacity", True, "Edema"),
    ("opacity", True, "Infiltration"),
    ("opacity", True, "Pneumonia"),
    ("opacity", True, "Atelectasis"),
    ("lower_opacity", True, "Effusion"),
    ("costophrenic_depth", False, "Effusion"),
    ("costophrenic_depth", False, "Pleural_Thickening"),
    ("lung_foot_difference", True, "Effusion"),
]


def line(*cells: object) -> None:
    """One row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def reader_rows() -> None:
    """The finding classifiers beside their audit."""
    audit = yaml.safe_load((WEIGHTS / "reader" / "audit.yaml").read_text(encoding="utf-8"))
    line("modality, finding", "with / without", "AUC (95 %)", "audit: whole", "centre hidden",
         "silhouette", "verdicts")  # fmt: skip
    line(*["---"] * 7)
    for modality, findings in reader_card().findings.items():
        for finding, entries in findings.items():
            for place, entry in enumerate(entries):
                seen = audit["findings"].get(modality, {}).get(finding, [])
                kinds = ["-"] * 3
                why = "judges" if entry.measurable else f"abstains: {entry.reason}"
                if place < len(seen):
                    kinds = [
                        f"{seen[place][kind]['auc']:.2f} ({seen[place][kind]['interval'][0]:.2f}-"
                        f"{seen[place][kind]['interval'][1]:.2f})"
                        for kind in ("whole", "centre hidden", "silhouette")
                    ]
                    if entry.measurable and seen[place]["reads_source"]:
                        why = "abstains: reads the source"
                name = f"{modality}, {finding}" + (
                    f" ({entry.population})" if entry.population else ""
                )
                low, high = entry.auc_interval
                line(name, f"{entry.positives} / {entry.negatives}",
                     f"{entry.auc:.3f} ({low:.3f}-{high:.3f})", *kinds, why)  # fmt: skip


def anatomy_rows() -> None:
    """The anatomy's values against findings, and the ranges that real images have."""
    figures = anatomy_figures()
    print()
    line("modality, finding", "value", "accuracy", "verdicts")
    line(*["---"] * 4)
    for population, card in opacity_card().populations.items():
        line(f"Chest X-ray, opaque lung ({population})", "lung opacity, denser side", card.accuracy,
             "judges" if card.measurable else f"abstains: {card.reason}")  # fmt: skip
    for modality, findings in figures.findings.items():
        for finding, entries in findings.items():
            for entry in entries:
                why = "judges" if entry.measurable else f"abstains: {entry.reason}"
                line(f"{modality}, {finding}", entry.value, entry.accuracy or "-", why)
    for modality, side in figures.sides.items():
        line(f"{modality}, side", side.value, side.accuracy, "judges the side alone")
    print()
    line(
        "modality",
        "value",
        "unit",
        "range of real images (1st-99th percentile)",
        "images",
        "not measured",
    )
    line(*["---"] * 6)
    for modality, values in figures.values.items():
        for name, known in values.items():
            unit = anatomy_cards()[modality]["values"][name]["unit"]
            low, high = known.range
            line(modality, name, unit, f"{low:g} to {high:g}", known.images, known.abstained)


def patient_interval(
    scores: np.ndarray, ill: np.ndarray, patients: np.ndarray, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of the AUC over resampled patients."""
    generator = np.random.default_rng(0)
    names = np.unique(patients)
    rows = {name: np.flatnonzero(patients == name) for name in names}
    areas = []
    for _ in range(draws):
        chosen = np.concatenate([rows[name] for name in generator.choice(names, len(names))])
        if 0 < ill[chosen].sum() < len(chosen):
            areas.append(auc(scores[chosen][ill[chosen]], scores[chosen][~ill[chosen]]))
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


def nih_rows(folder: Path) -> None:
    """Measurements against the labels of the small NIH films, by view."""
    values = read_values(folder / "chest_x_ray.csv")
    for read in values.values():
        if "opacity_right" in read:
            read["opacity"] = max(read["opacity_right"], read["opacity_left"])
        low = [read[name] for name in ("opacity_right_lower", "opacity_left_lower") if name in read]
        if low:
            read["lower_opacity"] = max(low)
    films = read_table(DATA / SMALL_FILMS)
    print()
    line(
        "value, label",
        "view",
        "with (patients) / no finding",
        "AUC (95 % by patient)",
        "against all others",
    )
    line(*["---"] * 5)
    for value, more, label in NIH:
        for view in ("PA", "AP"):
            known = [f for f in films if f["view"] == view and value in values.get(f["path"], {})]
            scores = np.array([values[film["path"]][value] for film in known]) * (1 if more else -1)
            ill = np.array([label in film["findings"].split("|") for film in known])
            well = np.array([film["findings"] == "No Finding" for film in known])
            patients = np.array([film["patient_id"] for film in known])
            if ill.sum() < 5:
                continue
            both = ill | well
            area = auc(scores[ill], scores[well])
            low, high = patient_interval(scores[both], ill[both], patients[both])
            others = auc(scores[ill], scores[~ill])
            few = "; too few patients" if len(set(patients[ill])) < 30 else ""
            line(f"{value}, {label}", view,
                 f"{ill.sum()} ({len(set(patients[ill]))}) / {well.sum()}",
                 f"{area:.3f} ({low:.2f}-{high:.2f}){few}", f"{others:.3f}")  # fmt: skip


if __name__ == "__main__":
    reader_rows()
    anatomy_rows()
    if len(sys.argv) > 1:
        nih_rows(Path(sys.argv[1]))

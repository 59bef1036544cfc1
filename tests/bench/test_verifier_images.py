"""The verifier on real images of ../shared/data: copies are flagged, true captions accepted.

Needs ../shared/data beside the clone; run with `pytest tests/bench/test_verifier_images.py`.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from medgen.agents.verifier import Panel
from medgen.data.images import load_square
from medgen.measure.build_memorisation import DISTORTIONS, distorted
from medgen.measure.memorisation import bundled_index, nearest_training
from medgen.records import Finding, Plan

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")
MODALITIES = ("Brain MRI", "Chest CT", "Chest X-ray", "Fundus", "OCT")
CASES = [
    ("Brain MRI", "meningioma", "meningioma", "nickparvar_tumor", None),
    ("Chest CT", "lung adenocarcinoma", "lung adenocarcinoma", "lung_cancer_filtered", None),
    ("Fundus", "cataract", "cataract", "eye4class", None),
]


def rows(split, **wanted):
    with (DATA / "manifest.csv").open(newline="") as stream:
        return [
            row
            for row in csv.DictReader(stream)
            if row["split"] == split and all(row[key] == value for key, value in wanted.items())
        ]


def images(chosen):
    return np.stack([load_square(DATA / row["path"], 256) for row in chosen])


@pytest.mark.parametrize("modality", MODALITIES)
def test_distorted_training_images_are_flagged_and_strangers_are_not(modality) -> None:
    index = bundled_index()
    originals = images(rows("train", modal=modality)[::40][:8])
    flagged = 0
    for kind in DISTORTIONS:
        copies = np.stack([distorted(image, kind) for image in originals])
        found = nearest_training(copies, [modality] * len(copies))
        flagged += sum(index.too_close(one, modality) for one in found)
    assert flagged >= 0.85 * len(originals) * len(DISTORTIONS)
    strangers = images(rows("test", modal=modality)[::7][:20])
    found = nearest_training(strangers, [modality] * len(strangers))
    assert sum(index.too_close(one, modality) for one in found) <= 0.2 * len(strangers)


@pytest.mark.parametrize(("modality", "label", "finding", "source", "age_group"), CASES)
def test_true_requests_are_accepted_more_often_than_their_negation(
    modality, label, finding, source, age_group
) -> None:
    panel = Panel.load()
    held_out = images(rows("test", source=source, label=label)[::3][:16])
    accepted = {}
    for status in ("present", "absent"):
        plan = Plan(
            prompt=finding,
            modality=modality,
            findings=[Finding(finding=finding, status=status)],
            age_group=age_group,
        )
        critiques = [panel.verify(image, plan, generated=False) for image in held_out]
        assert all(critique.modality == modality for critique in critiques)
        accepted[status] = sum(critique.accepted is True for critique in critiques)
    assert accepted["present"] >= 0.5 * len(held_out)
    assert accepted["absent"] <= 0.15 * len(held_out)


def test_finding_whose_classifier_reads_the_source_is_not_judged_by_it() -> None:
    panel = Panel.load()
    plan = Plan(prompt="glioma", modality="Brain MRI", findings=[Finding(finding="glioma")])
    for image in images(rows("test", source="nickparvar_tumor", label="glioma")[:3]):
        critique = panel.verify(image, plan, generated=False)
        assert critique.accepted is None
        assert any("reads the source" in line for line in critique.abstentions)

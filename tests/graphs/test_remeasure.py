"""Measured again, the same images have the same verdicts, and those that differ are named."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from dataset_samples import row
from phantom import PhantomGenerator, PhantomPanel, phantom_collaborators

from medgen.data.dataset_check import check_dataset
from medgen.data.dataset_rows import read_rows, write_manifest
from medgen.graphs.remeasure import remeasure
from medgen.records import Conditioning, Finding, Plan


@pytest.fixture
def films(tmp_path):
    """Two phantom films verified by the phantom panel: one enlarged heart, one that is not."""
    panel, generator = PhantomPanel(), PhantomGenerator()
    rows = []
    for number, ratio in enumerate((0.75, 0.43)):
        told = Conditioning(
            prompt="film",
            modality="Chest X-ray",
            structured={"cardiothoracic_ratio": ratio},
            seed=number,
        )
        asked = Plan(
            prompt="cardiomegaly",
            modality="Chest X-ray",
            findings=[Finding(finding="cardiomegaly")],
        )
        picture = generator.draw(told)
        critique = panel.verify(picture, asked)
        more = {"plan": asked, "verifier": panel.fingerprint, "label": "cardiomegaly"}
        one = row(
            tmp_path,
            f"film-{number}",
            number,
            kept=bool(critique.accepted),
            findings=critique.findings,
            picture=picture,
            **more,
        )
        rows.append(one)
    assert [one.kept for one in rows] == [True, False]
    write_manifest(tmp_path, rows)
    return tmp_path


def measured_again(folder, panel=None):
    report = check_dataset(folder)
    minds = phantom_collaborators(panel=panel or PhantomPanel())
    seen = []
    remeasure(report, collaborators=minds, progress=lambda *told: seen.append(told))
    assert seen == [("measured", 1, 2), ("measured", 2, 2)]
    return report


def test_the_same_verifier_says_the_same(films):
    report = measured_again(films)
    assert (report.counts, report.changed, report.measured) == ({}, [], 2)
    assert report.notes == []


def test_a_changed_verdict_is_counted_and_named(films):
    rows = list(read_rows(films))
    flipped = rows[0].findings[0].model_copy(update={"verdict": "abstain"})
    rows[0] = rows[0].model_copy(update={"findings": [flipped]})
    write_manifest(films, rows)
    report = measured_again(films)
    assert report.counts == {"changed verdict": 1}
    assert [one.text for one in report.changed] == [
        "film-0 attempt 1: cardiomegaly abstain, now confirmed"
    ]


def test_other_rules_are_named_where_they_change_what_is_accepted(films):
    panel = PhantomPanel(reject="blurred")
    panel.fingerprint = "another"
    report = measured_again(films, panel)
    assert [one.text for one in report.changed] == ["film-0 attempt 1: accepted true, now false"]
    assert "measured again by another" in report.notes[0]


def test_a_missing_image_is_left_out_and_told_by_the_check(films):
    (films / next(read_rows(films)).path).unlink()
    report = check_dataset(films)
    remeasure(report, collaborators=phantom_collaborators(panel=PhantomPanel()))
    assert report.measured == 1
    assert report.counts == {"missing file": 1}

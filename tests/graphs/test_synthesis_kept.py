"""Which images a dataset keeps: near copies, thresholds, what no check measures; and its candidates
in the feedback log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inline_crew import SPEC, BatchingPhantom, Make, files
from phantom import PhantomPanel, phantom_collaborators

from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import read_rows
from medgen.data.dataset_stats import measure
from medgen.data.images import pixel_sha256
from medgen.errors import BadInput
from medgen.feedback.log import FeedbackLog
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.synthesis_feedback import collect
from medgen.graphs.synthesis_journal import JOURNAL
from medgen.records import Critique, Plan


def test_near_copies_are_turned_down_and_the_most_alike_left_out(
    tmp_path: Path, make: Make
) -> None:
    text = SPEC.replace("near_copies: false", "near_copies: true, pool: 1.5")
    outcome = make("set", text)
    rows = list(read_rows(tmp_path / "set"))
    copies = [row for row in rows if any("near copy of" in reason for reason in row.reasons)]
    assert len(copies) == outcome.near_copies > 0  # phantom films are much alike
    assert all(row.accepted is True and row.path.startswith("rejected/") for row in copies)
    per = {name: sum(r.kept for r in rows if r.severity == name) for name in ("mild", "severe")}
    assert all(count <= 3 for count in per.values())
    assert {row.path for row in rows} == {n for n in files(tmp_path / "set") if n.endswith("png")}


def test_thresholds_reject_and_say_so(tmp_path: Path, make: Make) -> None:
    text = SPEC + "thresholds: {score: 0.95}\n"
    outcome = make("set", text.replace("tasks_an_image: 4", "tasks_an_image: 1"))
    assert outcome.kept == 0 and len(outcome.unmet) == 2
    reasons = {reason for row in read_rows(tmp_path / "set") for reason in row.reasons}
    assert "score 0.90 under the specification's 0.95" in reasons


class Measuring(PhantomPanel):
    """Says what it measures; fails to measure every film of an odd mean grey value."""

    def decides(self, _modality: str, finding: str, _population: str | None = None) -> list[str]:
        return ["phantom ratio"] if finding == "cardiomegaly" else []

    def verify(self, image: np.ndarray, plan: Plan, generated: bool = True) -> Critique:
        critique = super().verify(image, plan, generated)
        if int(image.mean() * 10) % 2 and not critique.rejections:
            unknown = [
                one.model_copy(update={"verdict": "abstain", "measurements": []})
                for one in critique.findings
            ]
            critique = critique.model_copy(
                update={"findings": unknown, "corrections": [], "accepted": None}
            )
        return critique


def measuring() -> Collaborators:
    return phantom_collaborators(BatchingPhantom(), Measuring())


def test_what_no_check_measures_is_kept_if_asked_but_not_where_a_check_failed(
    tmp_path: Path, make: Make
) -> None:
    text = SPEC.replace("[cardiomegaly]", "[cardiomegaly, clear lungs]").replace(
        "     severity: [mild, severe], sex", "     sex"
    )
    with pytest.raises(BadInput, match="nothing measures clear lungs in Chest X-ray"):
        make("set", text, collaborators=measuring, reasoning=measuring)
    text += "thresholds: {unmeasured: keep}\n"
    make("set", text, collaborators=measuring, reasoning=measuring)
    rows = list(read_rows(tmp_path / "set"))
    kept = [row for row in rows if row.kept]
    assert {(row.label, row.accepted) for row in kept} == {("cardiomegaly", True), ("normal", None)}
    cells = {cell.label: cell for cell in measure(open_dataset(tmp_path / "set")).cells}
    assert cells["cardiomegaly"].verified == cells["cardiomegaly"].kept > 0
    assert cells["normal"].verified == 0 < cells["normal"].kept
    failed = [row for row in rows if row.label == "cardiomegaly" and row.accepted is None]
    assert failed and all(row.reasons and row.path.startswith("rejected/") for row in failed)


def test_only_a_share_of_tasks_draws_the_control(tmp_path: Path, make: Make) -> None:
    make("set", SPEC.replace("each: 3", "each: 12") + "control_share: 0.3\n")
    rows = list(read_rows(tmp_path / "set"))
    with_control = {row.id for row in rows if row.control_score is not None}
    assert 0 < len(with_control) < len({row.id for row in rows}) / 2


def test_a_dataset_goes_into_the_feedback_log_once(tmp_path: Path, make: Make) -> None:
    outcome = make("one")
    log = FeedbackLog(tmp_path / "log.sqlite")
    first = collect(tmp_path / "one", log)
    images = list((tmp_path / "one").rglob("*.png"))
    assert (first.candidates, first.missing, first.known_runs) == (len(images), 0, 0)
    logged = log.candidates()
    assert sorted(one.image_path for one in logged) == sorted(map(str, images))
    assert all(one.image_sha256 == pixel_sha256(one.image_path) for one in logged)
    assert sum(one.chosen for one in logged) == outcome.kept
    assert all(one.drawn.critique is not None for one in logged)
    again = collect(tmp_path / "one", log)
    assert (again.runs, again.candidates, again.known_runs) == (0, 0, first.runs)
    (tmp_path / "one" / JOURNAL).unlink()
    with pytest.raises(BadInput, match="merged into"):
        collect(tmp_path / "one", log)
    log.close()

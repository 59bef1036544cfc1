"""The multi-stage recipe: train on all data, filter by the selector, retrain, then a round.

As MINIM (Wang et al. 2024, doi:10.1038/s41591-024-03359-y) describes its self-improvement: the
generator's own images that are judged best join the real ones, and the feedback round follows.
Each stage is done once; a killed recipe goes on. Calls what `medgen train` and `medgen rlhf run`
call; knows only their order.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from medgen.data.formats import Form, Reading, locate, read_rows
from medgen.errors import BadInput
from medgen.generator.checkpoints import writing_folder
from medgen.generator.training.config import (
    Section,
    TrainingConfig,
    checked,
    load_config,
    read_config,
)
from medgen.graphs.rlhf import SNAPSHOT, SelectorUse, choose_selector, run_round, take_snapshot
from medgen.graphs.rlhf_config import RoundConfig, SynthesisStage
from medgen.graphs.rlhf_drawing import Progress, Task, draw, tasks_of
from medgen.graphs.rlhf_watch import InLoopReward

if TYPE_CHECKING:
    from medgen.generator.training.progress import Reporter
    from medgen.graphs.rlhf_report import RoundReport

COLUMNS = ("path", "text", "modal", "label", "split", "group", "source")


class TrainStage(Section):
    """One training of the generator: a configuration of `medgen train`, and changes to it."""

    config: Path
    changes: dict[str, Any] = Field(default_factory=dict)


class FilterStage(SynthesisStage):
    """What the trained generator draws, and which share of each prompt's images is kept."""

    keep: float = Field(default=0.5, gt=0, le=1)


class MultistageConfig(Section):
    """The recipe.

    Args:
        out: Folder of all stages.
        log: The feedback log; that of MEDGEN_FEEDBACK when null.
        train: The first training, on all data; `generator` is one that is trained already.
        filter: What is drawn and kept.
        retrain: The second training, from the first's weights, on the real and the kept images.
        round: Entries of a `RoundConfig`, less its `out`, `log` and `generator`.
    """

    kind: Literal["multistage"]
    out: Path
    log: str | None = None
    train: TrainStage | None = None
    generator: Path | None = None
    filter: FilterStage
    retrain: TrainStage
    round: dict[str, Any]

    @model_validator(mode="after")
    def _one_beginning(self) -> MultistageConfig:
        if (self.train is None) == (self.generator is None):
            raise ValueError("give either train or generator")
        return self

    def of_round(self, generator: Path | None) -> RoundConfig:
        """The round that ends the recipe, on the retrained generator."""
        given = {"log": self.log, "generator": generator, **self.round, "out": self.out / "round"}
        return checked(RoundConfig, given, "round")


def run_multistage(config: MultistageConfig, reporter: Reporter, progress: Progress) -> RoundReport:
    """Do the whole recipe, or go on with it.

    Raises:
        BadInput: Inputs that are missing or do not fit.
        MedgenError: A full disk, or a signal to stop; the same command goes on.
    """
    from accelerate import PartialState

    shared = PartialState()
    retraining = _training(config.retrain, config.out / "retrain")
    early = config.of_round(None)
    if shared.is_main_process:
        early.out.mkdir(parents=True, exist_ok=True)
        take_snapshot(early)
    shared.wait_for_everyone()
    first = config.generator or _train(_training(config.train, config.out / "train"), reporter)
    table = config.out / "filtered" / "table.csv"
    if shared.is_main_process and not table.is_file():
        use = choose_selector(early, early.out / SNAPSHOT / "log.sqlite", reporter, progress)
        _filter(config, first, use, retraining, reporter, progress)
    shared.wait_for_everyone()
    joined = sorted((config.out / "filtered").glob("joined*.csv"))
    changes = {"table": table, "joined": joined, "images": None, "init_from": first}
    again = retraining.model_copy(update=changes)
    return run_round(config.of_round(_train(again, reporter)), reporter, progress)


def _training(stage: TrainStage | None, out: Path) -> TrainingConfig:
    assert stage is not None
    found = load_config(stage.config, {**stage.changes, "out": str(out)})
    if not isinstance(found, TrainingConfig):
        raise BadInput(f"{stage.config}: the recipe trains the compact generator, not {found.kind}")
    return found


def _train(config: TrainingConfig, reporter: Reporter) -> Path:
    from medgen.generator.training.loop import train

    return train(config, reporter)


def _filter(
    config: MultistageConfig,
    generator: Path,
    use: SelectorUse,
    retraining: TrainingConfig,
    reporter: Reporter,
    progress: Progress,
) -> None:
    """Draw, keep the best of each prompt, and write them beside the real rows as one table."""
    tasks = tasks_of(config.filter)
    table = draw(config.filter, tasks, config.out / "drawn", generator, None, progress)
    reward = InLoopReward(Path(use.folder) if use.used and use.folder else None)
    kept = best_of(tasks, reward(table, tasks), config.filter.keep)
    reporter.say(f"kept {len(kept)} of {len(tasks)} drawings by the {reward.name}")
    reading = Reading()
    with writing_folder(config.out / "filtered") as new:
        with (new / "table.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(read_rows(retraining.table, reading))
            writer.writerows(_drawn_row(tasks[k], table.rows[k].path) for k in kept)
        for number, joined in enumerate(retraining.joined):
            _copy_joined(joined, retraining.table.parent, reading.form, new / f"joined{number}.csv")


def best_of(tasks: Sequence[Task], rewards: np.ndarray, keep: float) -> list[int]:
    """Places of the share `keep` with the highest rewards of each prompt, at least one of each."""
    members: dict[str, list[int]] = defaultdict(list)
    for place, task in enumerate(tasks):
        members[task.prompt].append(place)
    kept: list[int] = []
    for own in members.values():
        order = sorted(own, key=lambda place: -rewards[place])
        kept += order[: max(1, round(keep * len(own)))]
    return sorted(kept)


def _drawn_row(task: Task, path: Path) -> dict[str, str]:
    """A drawing as a training row; the prompt is its group, so that no fold parts it."""
    return {
        "path": str(path.resolve()),
        "text": task.told.prompt,
        "modal": task.plan.modality,
        "split": "train",
        "group": f"synthetic: {task.prompt}",
    }


def _copy_joined(joined: Path, folder: Path, form: Form, target: Path) -> None:
    """A table joined to one in `folder`, under the absolute paths that the new table has."""
    with joined.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else ["path"])
        writer.writeheader()
        writer.writerows({**row, "path": locate(row["path"], folder, form)} for row in rows)


def run_configured(
    path: Path, changes: dict[str, Any], reporter: Reporter, progress: Progress
) -> RoundReport:
    """Do what a file configures: a round, or with `kind: multistage` the whole recipe.

    Raises:
        BadInput: No such file, an unknown key or a wrong value, or what the stages refuse.
        MedgenError: A full disk, or a signal to stop; the same command goes on.
    """
    content = read_config(path, changes)
    if content.get("kind") == "multistage":
        return run_multistage(checked(MultistageConfig, content, path), reporter, progress)
    return run_round(checked(RoundConfig, content, path), reporter, progress)

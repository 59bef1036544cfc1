"""The round: snapshot of the log, selector, policy, synthesis before and after, evaluation, report.

Each stage writes into its own folder and is not done again when it is there; a killed round goes
on where it was. What judges at the end (evaluation's scorers) is never what the loop optimised.
Runs under `accelerate launch`: the policy is trained by all processes, the rest by the first.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.feedback.exchange import import_log
from medgen.feedback.log import FeedbackLog
from medgen.generator.checkpoints import writing_folder
from medgen.graphs.rlhf_config import RoundConfig
from medgen.graphs.rlhf_drawing import Progress, Task, draw, tasks_of
from medgen.records import Record

if TYPE_CHECKING:
    from medgen.generator.training.progress import Reporter
    from medgen.graphs.rlhf_report import RoundReport

CONFIG, SNAPSHOT, REPORT = "round.json", "snapshot", "report.json"


class Snapshot(Record):
    """The log as it was when the round began, and its SHA-256."""

    log: str
    sha256: str
    candidates: int
    labels: int


class SelectorUse(Record):
    """Whether the selector's scores are the rewards, and why."""

    folder: str | None = None
    used: bool = False
    why: str = ""


def run_round(config: RoundConfig, reporter: Reporter, progress: Progress) -> RoundReport:
    """Do a whole round, or go on with one.

    Args:
        config: The round's.
        reporter: Told of each training step and what is worth a line.
        progress: Told (what, done, of how many) of other long work.

    Raises:
        BadInput: Inputs that are missing or do not fit, or a log that nothing can be learned from.
        MedgenError: A full disk, or a signal to stop; the same command goes on.
    """
    from accelerate import PartialState

    from medgen.graphs.rlhf_report import RoundReport, conclude

    config.check_files()
    shared = PartialState()
    tasks = tasks_of(config.synthesis)
    if shared.is_main_process:
        _claim(config)
        take_snapshot(config)
    shared.wait_for_everyone()
    snapshot = config.out / SNAPSHOT / "log.sqlite"
    if shared.is_main_process:
        choose_selector(config, snapshot, reporter, progress)
    shared.wait_for_everyone()
    use = SelectorUse.model_validate_json((config.out / "selector.json").read_bytes())
    adapters = train_seeds(config, str(snapshot), use, reporter)
    finished = config.out / "report" / REPORT
    if shared.is_main_process and not finished.is_file():
        synthesize(config, tasks, adapters, progress)
        conclude(config, tasks, adapters, use, reporter, progress)
    shared.wait_for_everyone()
    return RoundReport.model_validate_json(finished.read_bytes())


def _claim(config: RoundConfig) -> None:
    """Begin a round's folder, or find that it is this round's.

    Raises:
        BadInput: The folder holds a round of another configuration.
    """
    path, asked = config.out / CONFIG, config.model_dump(mode="json")
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_atomic(path, json.dumps(asked, indent=1) + "\n")
        return
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): choose another `out`") from error
    different = [key for key in asked if asked[key] != earlier.get(key)]
    if different:
        raise BadInput(
            f"{config.out} holds a round with another {different[0]}: choose another `out`, or go "
            "on with the configuration it was begun with"
        )


def take_snapshot(config: RoundConfig) -> Snapshot:
    """Copy the log, so that what is written to it meanwhile changes nothing here.

    Raises:
        BadInput: There is no log, or it holds nothing.
    """
    folder = config.out / SNAPSHOT
    path = folder / "snapshot.json"
    try:
        return Snapshot.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        pass
    log = FeedbackLog.existing(config.log)
    labels, candidates = log.count("labels"), log.count("candidates")
    if not labels:
        raise BadInput(f"the feedback log {log.name} holds no labels: medgen feedback rate")
    with writing_folder(folder) as new:
        exported = log.export(new / "log.jsonl")
        copied = FeedbackLog(new / "log.sqlite")
        import_log(copied, exported)
        copied.close()
        taken = Snapshot(
            log=log.name,
            sha256=hashlib.sha256(exported.read_bytes()).hexdigest(),
            candidates=candidates,
            labels=labels,
        )
        write_atomic(new / path.name, taken.model_dump_json(indent=1) + "\n")
    return taken


def choose_selector(
    config: RoundConfig, snapshot: Path, reporter: Reporter, progress: Progress
) -> SelectorUse:
    """Train the selector on the snapshot (or take one), and say whether it is used."""
    path, stage = config.out / "selector.json", config.selector
    if path.is_file():
        return SelectorUse.model_validate_json(path.read_bytes())
    if stage.use == "never":
        use = SelectorUse(why="the configuration uses none: the labels are the rewards")
    else:
        use = _trained_selector(config, snapshot, progress)
    reporter.say(f"selector: {use.why}")
    write_atomic(path, use.model_dump_json(indent=1) + "\n")
    return use


def _trained_selector(config: RoundConfig, snapshot: Path, progress: Progress) -> SelectorUse:
    from medgen.feedback.selector import load_reward
    from medgen.feedback.selector_build import train_selector
    from medgen.feedback.selector_settings import selector_settings

    folder = config.selector.folder
    if folder is None:
        folder = config.out / "selector"
        if not folder.exists():
            options = selector_settings(changes=config.selector.settings)
            try:
                train_selector(FeedbackLog.existing(snapshot), folder, options, progress=progress)
            except BadInput as error:
                return SelectorUse(why=f"none ({error}): the labels are the rewards")
    card = load_reward(folder).card
    word = "its scores are the rewards" if card.usable else "not used, the labels are the rewards"
    return SelectorUse(folder=str(folder), used=card.usable, why=f"{word} ({card.why})")


def train_seeds(
    config: RoundConfig, snapshot: str, use: SelectorUse, reporter: Reporter
) -> dict[int, Path]:
    """Train (or find) the adapter of each seed; their folders."""
    from medgen.feedback.policy import train_policy

    selector = Path(use.folder) if use.used and use.folder else None
    return {
        seed: train_policy(config.policy_of(seed, snapshot, selector), reporter)
        for seed in config.seeds
    }


def synthesize(
    config: RoundConfig, tasks: list[Task], adapters: dict[int, Path], progress: Progress
) -> None:
    """Draw the set by the base and by each seed's adapter."""
    stage, base, drawn = config.synthesis, config.generator, config.out / "drawn"
    draw(stage, tasks, drawn / "before", base, None, progress)
    for seed, adapter in adapters.items():
        draw(stage, tasks, drawn / f"after-{seed}", base, adapter, progress)

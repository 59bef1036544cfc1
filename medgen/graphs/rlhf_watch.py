"""Reward hacking watched: the loop's own reward beside held-out scorers over training steps.

Where the reward rises and the held-out disagreement does not fall, the loop is learning to please
its scorer. Draws a small set by each kept adapter; chooses nothing by what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from medgen.data.images import write_atomic
from medgen.evaluation.paired import Drawn, disagreement
from medgen.evaluation.tables import ImageTable
from medgen.feedback.policy_run import STEPS
from medgen.graphs.rlhf_config import RoundConfig
from medgen.graphs.rlhf_drawing import Progress, Task, draw, listed
from medgen.records import Candidate, Record

PLOT = "hacking.png"


class WatchPoint(Record):
    """The small set after a step: the loop's reward, held-out disagreement and doubt (0-1).

    `disagreement` is the mean over modalities of one minus the balanced accuracy of what was
    asked, `doubt` one minus the mean probability that evaluation's reader gives to it.
    """

    seed: int
    step: int
    reward: float
    disagreement: float | None = None
    doubt: float | None = None


class InLoopReward:
    """What the loop optimised, of new drawings: the selector's score, else the verifier's."""

    def __init__(self, selector: Path | None) -> None:
        from medgen.agents.verifier import Panel

        self.panel, self.selector = Panel.load(), None
        self.name = "verifier's score"
        if selector is not None:
            from medgen.feedback.selector import load_reward

            self.selector = load_reward(selector)
            self.name = "selector's reward"

    def __call__(self, table: ImageTable, tasks: Sequence[Task]) -> np.ndarray:
        """(n,) rewards of drawings."""
        from medgen.feedback.selector_asked import Asked

        images = table.images()
        critiques = [
            self.panel.verify(image, task.plan, generated=True)
            for image, task in zip(images, tasks, strict=True)
        ]
        if self.selector is None:
            return np.array([one.score for one in critiques])
        every = [
            Asked.of(
                Candidate(id=task.name, round=1, image="", conditioning=task.told, critique=one),
                task.prompt,
                task.plan,
            )
            for task, one in zip(tasks, critiques, strict=True)
        ]
        return self.selector.score(images, every)


def watch(
    config: RoundConfig, tasks: Sequence[Task], selector: Path | None, progress: Progress
) -> tuple[list[WatchPoint], str]:
    """Draw and judge the small set after each kept step of each seed; the reward's name too."""
    few = [task for task in tasks if int(task.name.split("-")[1][:3]) < config.watch.images]
    if not few:
        return [], ""
    reward = InLoopReward(selector)
    before = _point(few, listed(few, config.out / "drawn" / "before"), reward)
    points = []
    for seed in config.seeds:
        points.append(before.model_copy(update={"seed": seed}))
        kept = sorted((config.out / "policy" / f"seed-{seed}" / STEPS).iterdir())
        for adapter in kept:
            folder = config.out / "drawn" / f"watch-{seed}-{adapter.name}"
            table = draw(config.synthesis, few, folder, config.generator, adapter, progress)
            found = _point(few, table, reward)
            points.append(found.model_copy(update={"seed": seed, "step": int(adapter.name)}))
    return points, reward.name


def _point(tasks: Sequence[Task], table: ImageTable, reward: InLoopReward) -> WatchPoint:
    seen = Drawn(table)
    wrong = [disagreement(seen.codes(modality)) for modality in table.modals]
    known = [one for one in wrong if np.isfinite(one)]
    doubts = seen.doubts()
    return WatchPoint(
        seed=0,
        step=0,
        reward=float(reward(table, tasks).mean()),
        disagreement=float(np.mean(known)) if known else None,
        doubt=float(np.nanmean(doubts)) if np.isfinite(doubts).any() else None,
    )


def plot(points: Sequence[WatchPoint], name: str, folder: Path) -> Path:
    """Write the curves as `hacking.png`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6, 6), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(3, 1, sharex=True)
    titles = (name, "held-out disagreement", "held-out doubt")
    for axis, key, title in zip(axes, ("reward", "disagreement", "doubt"), titles, strict=True):
        for seed in sorted({one.seed for one in points}):
            own = [one for one in points if one.seed == seed and getattr(one, key) is not None]
            values = [getattr(one, key) for one in own]
            axis.plot([one.step for one in own], values, "o-", label=f"seed {seed}")
        axis.set_ylabel(title)
    axes[0].legend()
    axes[-1].set_xlabel("training step")
    buffer = BytesIO()
    drawing.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return write_atomic(folder / PLOT, buffer.getvalue())

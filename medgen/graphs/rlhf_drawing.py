"""Drawings of a round: the same requests and seeds by the base and by each adapter, as tables.

An image that lies there already is not drawn again. Knows how requests are composed; judges
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medgen.agents.state import noise_seed
from medgen.data.images import save_synthetic_png
from medgen.errors import BadInput
from medgen.evaluation.tables import ImageTable, Row
from medgen.generator.backends import BUNDLED, available_cores
from medgen.generator.compact import CompactGenerator
from medgen.graphs.generate import conditioning_of
from medgen.graphs.rlhf_config import SynthesisStage
from medgen.records import Conditioning, Finding, Plan, Request
from medgen.settings import settings

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """One image to draw: its request, what the generator is told, and its file's name."""

    name: str
    prompt: str
    plan: Plan
    told: Conditioning

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the image should show."""
        return tuple(self.plan.findings)


def tasks_of(stage: SynthesisStage) -> list[Task]:
    """Every image of a set, prompts in turn.

    Raises:
        BadInput: A prompt that cannot be understood.
    """
    tasks = []
    for number, one in enumerate(stage.listed()):
        request = Request(prompt=one.prompt, modality=one.modality, seed=stage.seed)
        try:
            plan, told = conditioning_of(request, raw=False)
        except BadInput as error:
            raise BadInput(f"synthesis.prompts, {number + 1}: {error}") from error
        for index in range(one.images or stage.images):
            noise = noise_seed(stage.seed + number, index, 1, 0)
            given = told.model_copy(update={"seed": noise, "steps": stage.steps})
            tasks.append(Task(f"{number:03d}-{index:03d}.png", one.prompt, plan, given))
    return tasks


def load_base(stage: SynthesisStage, base: Path | None, adapter: Path | None) -> CompactGenerator:
    """A base (the bundled one when None) with an adapter, sampling as the settings say."""
    import torch

    options = settings()
    torch.set_num_threads(options.threads or available_cores())
    return CompactGenerator(
        base or BUNDLED,
        steps=stage.steps,
        guidance_scale=options.guidance_scale,
        micro_batch=stage.micro_batch,
        number_guidance=options.number_guidance,
        adapter=adapter,
    )


def draw(
    stage: SynthesisStage,
    tasks: Sequence[Task],
    folder: Path,
    base: Path | None,
    adapter: Path | None,
    progress: Progress,
) -> ImageTable:
    """Draw what is not there yet, and list all.

    Args:
        stage: How.
        tasks: What to draw.
        folder: Of the images.
        base: What draws; the bundled generator when None.
        adapter: Over the base; None for the base alone.
        progress: Told (what, done, of how many).

    Raises:
        BadInput: A modality that the base cannot draw.
    """
    missing = [task for task in tasks if not (folder / task.name).is_file()]
    if missing:
        generator = load_base(stage, base, adapter)
        batch = stage.micro_batch
        # Alike in shape, so that batches are full.
        missing.sort(key=lambda task: (task.plan.modality, len(task.told.structured), task.name))
        for start in range(0, len(missing), batch):
            part = missing[start : start + batch]
            pictures = generator.sample([task.told for task in part])
            for task, pixels in zip(part, pictures, strict=True):
                tags = {
                    "Prompt": task.prompt,
                    "Drawn prompt": task.told.prompt,
                    "Seed": str(task.told.seed),
                    "Generator": generator.name,
                }
                save_synthetic_png(folder / task.name, pixels, tags)
            done = len(tasks) - len(missing) + start + len(part)
            progress(f"drawing {folder.name}", done, len(tasks))
    return listed(tasks, folder)


def listed(tasks: Sequence[Task], folder: Path) -> ImageTable:
    """The drawings of a folder as a table, in the order of the tasks, grouped by prompt."""
    rows = tuple(
        Row(
            path=folder / task.name,
            text=task.prompt,
            modal=task.plan.modality,
            group=task.prompt,
            findings=task.findings,
        )
        for task in tasks
    )
    return ImageTable(name=folder.name, rows=rows, size=256, grouped=True)

"""What a dataset would take: images, candidates, time, room and money, before anything is made.

The time of a candidate is measured here and now, by drawing and verifying one batch; how many
candidates an accepted image takes was measured before (`rules/synthesis.yaml`, with its source).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import yaml

from medgen.agents import composer, parser
from medgen.errors import BadInput
from medgen.generator.backends import available_cores
from medgen.graphs.collaborators import Collaborators
from medgen.graphs.plan import request_of
from medgen.graphs.synthesis import Job, worker_options
from medgen.graphs.synthesis_store import is_remote
from medgen.records import Conditioning, Record
from medgen.settings import settings

KILO = 1e9


class Yields(Record):
    """`rules/synthesis.yaml`: what images took when it was measured.

    `candidates_an_image` by modality is candidates drawn for an accepted image, controls
    included; `otherwise` for modalities not measured. `bytes_a_candidate` is of its PNG file.
    """

    source: str
    candidates_an_image: dict[str, float]
    otherwise: float
    bytes_a_candidate: int


class Part(Record):
    """One modality's share of a dataset."""

    modality: str
    images: int
    candidates_an_image: float
    candidates: int


class Estimate(Record):
    """What a dataset would take; `seconds` are on the clock with so many workers."""

    images: int
    combinations: int
    parts: list[Part]
    seconds_a_candidate: float
    workers: int
    seconds: float
    core_hours: float
    cost: float | None
    gigabytes: float
    notes: list[str]
    warnings: dict[str, int]


@lru_cache
def yields() -> Yields:
    """The bundled figures, read once."""
    source = resources.files("medgen.graphs") / "rules" / "synthesis.yaml"
    return Yields.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))


def estimate(
    spec: str | Path,
    out: str | Path,
    *,
    seed: int | None = None,
    workers: int | None = None,
    minds: Collaborators | None = None,
) -> Estimate:
    """Check a specification and say what it would take; draws one batch and writes nothing.

    Args:
        spec: As for `synthesize`.
        out: Where the dataset would go; its free room is looked at.
        seed: Over the specification's.
        workers: As for `synthesize`.
        minds: The caller's own generator and panel; the bundled ones when None.

    Raises:
        BadInput: The specification cannot be used, or the modality cannot be drawn.
    """
    minds = minds or Collaborators(options=worker_options(settings()))
    job = Job(spec, out, seed, minds)
    known, parts = yields(), []
    for modality, images in sorted(job.checked.modalities.items()):
        if modality not in minds.generator.modalities:
            raise BadInput(parser.explain_undrawable(modality, list(minds.generator.modalities)))
        each = known.candidates_an_image.get(modality, known.otherwise)
        parts.append(
            Part(
                modality=modality,
                images=images,
                candidates_an_image=each,
                candidates=round(images * each),
            )
        )
    candidates = sum(part.candidates for part in parts)
    seconds = _measured(job, minds)
    crew = workers or available_cores()
    threads = worker_options(settings()).threads
    hours = candidates * seconds / 3600
    price = job.spec.budget.core_hour
    gigabytes = candidates * known.bytes_a_candidate / KILO
    return Estimate(
        images=job.wanted,
        combinations=len(job.cells) or job.checked.prompts,
        parts=parts,
        seconds_a_candidate=round(seconds, 3),
        workers=crew,
        seconds=hours * 3600 / crew,
        core_hours=hours * threads,
        cost=None if price is None else hours * threads * price,
        gigabytes=gigabytes,
        notes=list(_notes(job, gigabytes, crew, threads)),
        warnings=dict(job.checked.warnings.most_common()),
    )


def _measured(job: Job, minds: Collaborators) -> float:
    """Seconds that one candidate takes in a full batch: drawing, and verifying it."""
    prompts: Sequence[tuple[str, str | None]]
    if job.cells:
        prompts = [(cell.prompt(job.spec.seed, 0), cell.modality) for cell in job.cells[:1]]
    else:
        first = next(job.tasks_of_table())
        prompts = [(first.prompt, first.modality)]
    plan = parser.parse(request_of(*prompts[0]))
    told: Conditioning = composer.compose(plan, [])
    told = told.model_copy(update={"steps": job.spec.steps, "guidance_scale": job.spec.guidance})
    size = int(getattr(minds.generator, "micro_batch", 1))
    clock = time.perf_counter()
    pictures = minds.generator.sample([told.model_copy(update={"seed": i}) for i in range(size)])
    for pixels in pictures:
        minds.panel.verify(pixels, plan, generated=True)
    return (time.perf_counter() - clock) / size


def _notes(job: Job, gigabytes: float, crew: int, threads: int) -> list[str]:
    notes = [f"candidates an image: {yields().source}"]
    if not is_remote(job.out):
        nearest = Path(job.out).expanduser().resolve()
        while not nearest.exists():
            nearest = nearest.parent
        free = shutil.disk_usage(nearest).free / KILO
        if free < gigabytes:
            notes.append(f"{nearest} has {free:.1f} GB free, which is not enough")
    if crew * threads > available_cores():
        notes.append(f"{crew} workers on {available_cores()} cores: each is slower than measured")
    return notes

"""One draw without verification: read the request, compose, draw, write.

The image of index i has the noise of the agent's first candidates with the same seed, so
`raw` draws the agent's control and the default its first refined candidate (but for the facts
that only the agent retrieves). Knows the order of the roles, not how they think.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from medgen.agents import anatomy, composer, features, parser, pathology
from medgen.agents.state import noise_seed
from medgen.data.images import save_synthetic_png, write_atomic
from medgen.errors import BadInput
from medgen.generator.base import Generator, adapter_of
from medgen.generator.structured import CATEGORIES, NUMBERS
from medgen.graphs.collaborators import Collaborators, shared_collaborators
from medgen.graphs.results import DrawingResult
from medgen.graphs.run_folder import image_path
from medgen.records import Conditioning, Plan, Request
from medgen.settings import settings

DRAWING = "drawing.json"


def generate(
    prompt: str,
    modality: str | None = None,
    *,
    images: int = 1,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    structured: Mapping[str, float | str] | None = None,
    raw: bool = False,
    out: str | Path | None = None,
    collaborators: Collaborators | None = None,
) -> DrawingResult:
    """Draw images of a request, each once, and write them with their record.

    Args:
        prompt: What to draw, in the user's words.
        modality: A modality, over the one that the prompt names.
        images: How many.
        seed: Same seed and same weights, same images.
        steps: Sampling steps; the settings' when None.
        guidance: Classifier-free guidance scale, 1 or more; the settings' when None.
        negative: What not to draw; the composer's when None.
        structured: Structured conditions (see `medgen.generator.structured`), over the composer's.
        raw: Draw the prompt as typed instead of a composed one.
        out: Folder to write to; a new one under `MEDGEN_RUNS` when None.
        collaborators: What draws; this process's own when None.

    Raises:
        BadInput: The request cannot be understood or drawn, or the folder cannot be written;
            nothing was written then.
    """
    started = time.monotonic()
    if images < 1:
        raise BadInput(f"images is {images}: give 1 or more")
    request = Request(prompt=prompt, modality=modality, seed=seed, images=images)
    given = _checked(structured or {})
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 1):
        raise BadInput(f"guidance {guidance} is no number from 1 up: 2 to 4 is usual")
    plan = _plan(request)
    folder = _folder(request, out)
    paths = [image_path(folder, index, images) for index in range(images)]
    _refuse_occupied([*paths, folder / DRAWING])

    minds = collaborators or shared_collaborators()
    with minds.turn:
        generator = minds.generator
    if plan.modality not in generator.modalities:
        raise BadInput(parser.explain_undrawable(plan.modality, list(generator.modalities)))
    told = _told(request, plan, raw, generator.reads_free_text)
    changes: dict[str, object] = {"seed": seed, "structured": {**told.structured, **given}}
    if steps is not None:
        changes["steps"] = steps
    if guidance is not None:
        changes["guidance_scale"] = guidance
    if negative is not None:
        changes["negative_prompt"] = negative
    told = told.model_copy(update=changes)
    noise = [noise_seed(seed, index, 1, 0) for index in range(images)]
    with minds.turn:
        pictures = generator.sample([told.model_copy(update={"seed": one}) for one in noise])
    drawing = DrawingResult(
        images=[str(path) for path in paths],
        prompt=prompt,
        conditioning=told,
        noise_seeds=noise,
        warnings=plan.warnings,
        seconds=round(time.monotonic() - started, 3),
        generator=generator.name,
        fingerprint=generator.fingerprint,
        adapter=adapter_of(generator),
    )
    try:
        for path, pixels, one in zip(paths, pictures, noise, strict=True):
            save_synthetic_png(path, pixels, _tags(drawing, generator, one))
        write_atomic(folder / DRAWING, drawing.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise BadInput(_unwritable(folder, error.strerror or str(error))) from error
    return drawing


def conditioning_of(
    request: Request, raw: bool, describe: bool = False
) -> tuple[Plan, Conditioning]:
    """The plan of a request, and what the generator is told: composed, or as typed when raw.

    Args:
        request: What was asked.
        raw: The prompt as typed.
        describe: Compose for a backend that reads free text.
    """
    plan = _plan(request)
    return plan, _told(request, plan, raw, describe)


def _plan(request: Request) -> Plan:
    return pathology.assess(anatomy.localize(parser.parse(request)))


def _told(request: Request, plan: Plan, raw: bool, describe: bool) -> Conditioning:
    if raw:
        return composer.control(request, plan)
    return composer.compose(features.map_features(plan, []), [], describe=describe)


def _checked(structured: Mapping[str, float | str]) -> dict[str, float | str]:
    for name, value in structured.items():
        if name in NUMBERS:
            if isinstance(value, str) or not math.isfinite(value):
                raise BadInput(f"structured condition {name}={value} needs a number")
        elif name not in CATEGORIES:
            known = ", ".join([*NUMBERS, *CATEGORIES])
            raise BadInput(f"structured condition {name!r} is unknown: use one of {known}")
        elif value not in CATEGORIES[name]:
            known = ", ".join(CATEGORIES[name])
            raise BadInput(f"structured condition {name}={value} is unknown: use one of {known}")
    return dict(structured)


def _folder(request: Request, out: str | Path | None) -> Path:
    """The folder to write to, checked to be writable but not made yet."""
    if out is None:
        digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:8]
        out = settings().runs / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{digest}-generate"
    try:
        folder = Path(out).expanduser().resolve()
        nearest = folder
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is no folder")
        probe = nearest / f".medgen-{datetime.now(UTC):%H%M%S%f}"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(_unwritable(out, getattr(error, "strerror", None) or str(error))) from error
    return folder


def _refuse_occupied(targets: list[Path]) -> None:
    for target in targets:
        if target.exists():
            raise BadInput(
                f"{target.parent} already holds {target.name}: choose another folder with --out"
            )


def _unwritable(folder: str | Path, reason: str) -> str:
    return f"cannot write to {folder} ({reason}): choose a folder with --out"


def _tags(drawing: DrawingResult, generator: Generator, noise: int) -> dict[str, str]:
    return {
        "Prompt": drawing.prompt,
        "Drawn prompt": drawing.conditioning.prompt,
        "Seed": str(noise),
        "Run seed": str(drawing.conditioning.seed),
        "Generator": f"{generator.name} {generator.fingerprint}",
        "Verdict": "not verified",
    }

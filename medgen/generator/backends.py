"""Which generator a setting names: the one place where backends are chosen."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from medgen.errors import BadInput
from medgen.generator.base import Generator
from medgen.settings import Settings

BUNDLED = Path(str(resources.files("medgen.generator") / "weights" / "compact"))


def available_cores() -> int:
    """Processor cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen_adapter(settings: Settings) -> Path | None:
    """The adapter of `settings.adapter`, the promoted one when that is not set; None for none.

    Raises:
        BadInput: An adapter for a backend that takes none, or a promoted one that is gone.
    """
    if settings.backend != "compact":
        if isinstance(settings.adapter, Path):
            raise BadInput(
                f"MEDGEN_ADAPTER is for the compact backend, not for {settings.backend}: give the "
                "folder as MEDGEN_TUNED"
            )
        return None
    if settings.adapter == "none":
        return None
    if settings.adapter is not None:
        return settings.adapter.expanduser()
    from medgen.generator.adapter import base_hash
    from medgen.generator.promotion import promoted, registry

    if not any(registry().promotions.values()):
        return None
    one = promoted(base_hash(settings.weights or BUNDLED))
    if one is None:
        return None
    if not Path(one.folder).is_dir():
        raise BadInput(
            f"the promoted adapter {one.adapter} is gone from {one.folder}: medgen rlhf rollback"
        )
    return Path(one.folder)


def load_generator(settings: Settings) -> Generator:
    """Load the backend of `settings.backend`.

    Raises:
        BadInput: An unknown backend, or weights that are missing or do not load.
    """
    import torch

    torch.set_num_threads(settings.threads or available_cores())
    kind, _, source = settings.backend.partition(":")
    if kind == "compact" and not source:
        from medgen.generator.compact import CompactGenerator
        from medgen.generator.sampling import Sampling

        return CompactGenerator(
            settings.weights or BUNDLED,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            micro_batch=settings.micro_batch,
            number_guidance=settings.number_guidance,
            sampling=Sampling(
                sampler=settings.sampler,
                schedule=settings.guidance_schedule,
                interval=settings.guidance_interval,
                threshold=settings.dynamic_threshold,
            ),
            adapter=chosen_adapter(settings),
        )
    if kind == "diffusers" and source:
        from medgen.generator.diffusers_backend import DiffusersGenerator

        return DiffusersGenerator.load(
            source,
            tuned=settings.tuned,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
        )
    raise BadInput(
        f"MEDGEN_BACKEND={settings.backend!r} is unknown: use 'compact' or "
        "'diffusers:FOLDER_OR_HUB_ID'"
    )

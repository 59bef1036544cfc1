"""medgen: synthetic medical images, reasoned about, checked by measurement, and explained.

For research and teaching, never for diagnosis. The public API:

    import medgen

    run = medgen.Agent().run("cardiomegaly, chest X-ray", seed=7)
    run.image, run.findings, run.accepted, run.trace, run.events
    again = medgen.load(run.run_id)
    drawing = medgen.generate("glioma, brain MRI", images=4)
    generator = medgen.load_generator()

Runs and drawings show themselves in a notebook. Nothing heavy is imported before one of these
names is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from medgen.errors import BadInput as BadInput
    from medgen.errors import Cancelled as Cancelled
    from medgen.errors import MedgenError as MedgenError
    from medgen.generator.base import Generator
    from medgen.graphs.agent import Agent as Agent
    from medgen.graphs.generate import generate as generate
    from medgen.graphs.results import DrawingResult as DrawingResult
    from medgen.graphs.results import RunResult as RunResult
    from medgen.graphs.results import load as load
    from medgen.knowledge.cards import ModalityCard as Modality

HOMES = {
    "Agent": ("medgen.graphs.agent", "Agent"),
    "DrawingResult": ("medgen.graphs.results", "DrawingResult"),
    "RunResult": ("medgen.graphs.results", "RunResult"),
    "generate": ("medgen.graphs.generate", "generate"),
    "load": ("medgen.graphs.results", "load"),
    "Modality": ("medgen.knowledge.cards", "ModalityCard"),
    "MedgenError": ("medgen.errors", "MedgenError"),
    "BadInput": ("medgen.errors", "BadInput"),
    "Cancelled": ("medgen.errors", "Cancelled"),
}

__all__ = [
    "Agent",
    "BadInput",
    "Cancelled",
    "DrawingResult",
    "MedgenError",
    "Modality",
    "RunResult",
    "generate",
    "load",
    "load_generator",
]


def load_generator(backend: str | None = None, weights: str | Path | None = None) -> Generator:
    """Load what draws, to use by itself.

    Args:
        backend: "compact" or "diffusers:FOLDER_OR_HUB_ID"; `MEDGEN_BACKEND` when None.
        weights: Folder of a compact generator; `MEDGEN_WEIGHTS`, else the bundled one, when None.

    Returns:
        A generator: `sample(conditionings) -> (n, height, width, 3) uint8`, `modalities`,
        `name`, `fingerprint`.

    Raises:
        BadInput: There is no such backend or folder, or it is damaged.
    """
    from medgen.generator import backends
    from medgen.settings import Settings, settings

    given = {"backend": backend, "weights": weights}
    chosen = {name: value for name, value in given.items() if value is not None}
    return backends.load_generator(Settings.model_validate({**settings().model_dump(), **chosen}))


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'medgen' has no attribute {name!r}")
    module, attribute = HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)

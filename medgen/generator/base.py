"""What the rest of medgen knows of a generator: conditions in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from medgen.records import Conditioning


@runtime_checkable
class Generator(Protocol):
    """A backend that draws.

    Attributes:
        name: Which backend and weights, for traces and image tags.
        fingerprint: Hash of the weights (hex), so that a record says what drew it.
        modalities: Names of the modality cards that this backend can draw.
        reads_free_text: Whether it understands more than the captions of the bundled training:
            grade, place and looks in words.
    """

    name: str
    fingerprint: str
    modalities: tuple[str, ...]
    reads_free_text: bool

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        """Draw one picture for each conditioning, deterministic in its seed.

        Args:
            conditionings: Each with its own prompt, seed, guidance, steps, structured conditions
                and, for img2img, `init_image` (a path) with `strength` in (0, 1]; with
                `mask_image` only its bright part is drawn anew.

        Returns:
            (n, height, width, 3) uint8; grey modalities have three equal channels.

        Raises:
            BadInput: A modality that this backend cannot draw, or an unreadable init image.
        """
        ...


def steers(generator: Generator) -> bool:
    """Whether a generator follows `Conditioning.aims`; a backend that does not say so does not."""
    return bool(getattr(generator, "steers", False))


def adapter_of(generator: Generator) -> str:
    """The id of the adapter that a generator draws with; empty for none, or a backend without."""
    return str(getattr(generator, "adapter", ""))

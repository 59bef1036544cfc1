"""The image-text margin of any open_clip model, BiomedCLIP for one, where the settings name it.

A caption of the asked finding is set against captions of other findings of the same modality. Its
accuracy has not been measured on this project's images: it moves the score, never a verdict.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from medgen.agents.verifier.cards import rules
from medgen.knowledge.cards import finding_cards
from medgen.measure.clip import CHECK, concepts
from medgen.measure.open_clip_model import OpenCLIP
from medgen.records import Measurement, Plan


@lru_cache
def load_open_clip(where: str) -> OpenCLIP:
    """A model by folder or hub id, loaded once a process.

    Raises:
        BadInput: It cannot be loaded.
    """
    return OpenCLIP(where)


def captions(finding: str, modality: str) -> list[str]:
    """The finding's caption, then those of others: its measured contrasts, else its neighbours."""
    concept = concepts().get(finding)
    if concept is not None and concept.modality == modality and concept.contrasts:
        return [concept.text, *concept.contrasts]
    others = [name for name in finding_cards().get(modality, {}) if name != finding]
    chosen = others[: rules().alignment_contrasts]
    return [f"{modality} showing {name}" for name in (finding, *chosen)]


def open_clip_margin(image: np.ndarray, plan: Plan, where: str) -> Measurement | None:
    """Cosine to the first present finding's caption minus the greatest cosine to another.

    Args:
        image: (H, H, 3) uint8.
        plan: What was asked.
        where: A folder or hub id for `load_open_clip`.

    Returns:
        The margin, or None where nothing that could be captioned was asked.
    """
    finding = next((one for one in plan.findings if one.status == "present"), None)
    if finding is None:
        return None
    texts = captions(finding.finding, plan.modality)
    if len(texts) < 2:
        return None
    model = load_open_clip(where)
    cosines = model.text_embeddings(texts) @ model.image_embeddings(image[None])[0]
    return Measurement(
        name="image_text_margin",
        value=round(float(cosines[0] - cosines[1:].max()), 4),
        unit="cosine",
        expected=(0.0, None),
        check=f"{CHECK} ({model.name})",
        accuracy="not measured on this project's images",
    )

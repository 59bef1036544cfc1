"""Image-text scorers of evaluation: how well does an image fit the words, to an eye of its own?

The bundled one has two locked towers, evaluation's reader for images and the local sentence model
for words, and two small trained projections between them (locked-image tuning, Zhai et al. 2022,
arXiv 2111.07991). Any open_clip model, BiomedCLIP for one, can take its place. Neither is the
verifier's. Knows nothing of requests; `alignment` does.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.evaluation import reader
from medgen.knowledge.embedder import Embedder
from medgen.measure.open_clip_model import OpenCLIP

WEIGHTS = Path(__file__).parent / "weights" / "clip"


class Scorer(Protocol):
    """What embeds images and texts in one space; `name` is written beside every figure."""

    name: str

    def image_embeddings(self, images: np.ndarray) -> np.ndarray:
        """(n, d) float32 of unit length, of (n, H, H, 3) uint8 images."""
        ...

    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        """(n, d) float32 of unit length."""
        ...


class Projections(nn.Module):
    """The trained part: a perceptron from each tower's vectors to the shared space."""

    def __init__(self, image: int, text: int, hidden: int, shared: int, dropout: float) -> None:
        super().__init__()
        self.image = _perceptron(image, hidden, shared, dropout)
        self.text = _perceptron(text, hidden, shared, dropout)
        self.logit_scale = nn.Parameter(torch.tensor(2.3))

    def images(self, vectors: Tensor) -> Tensor:
        """(n, image) reader vectors to (n, shared) of unit length."""
        return F.normalize(self.image(vectors), dim=1)

    def texts(self, vectors: Tensor) -> Tensor:
        """(n, text) sentence vectors to (n, shared) of unit length."""
        return F.normalize(self.text(vectors), dim=1)


def _perceptron(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(inputs),
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
    )


class LockedCLIP:
    """Evaluation's own CLIP over locked towers; see `weights/clip/MODEL_CARD.md`."""

    def __init__(self, projections: Projections, config: dict) -> None:
        self.projections = projections.eval()
        self.config = config
        self.embedder = Embedder()
        self.name = "medgen evaluation CLIP"

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> LockedCLIP:
        """Read the projections from a folder written by `save`.

        Raises:
            BadInput: Nothing readable there, or trained on other towers than are installed.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            projections = Projections(**config["model"])
            weights = load_file(folder / "projections.safetensors")
            projections.load_state_dict({name: value.float() for name, value in weights.items()})
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"no CLIP of evaluation in {folder} ({reason}): train one with "
                "medgen.evaluation.train_clip"
            ) from error
        projections.requires_grad_(False)
        clip = cls(projections, config)
        for tower, fingerprint in towers(clip.embedder).items():
            if config["towers"].get(tower) != fingerprint:
                raise BadInput(
                    f"the CLIP in {folder} was trained on another {tower} than is installed: "
                    "train it again with medgen.evaluation.train_clip"
                )
        return clip

    def save(self, folder: str | Path) -> None:
        """Write fp16 projections and the configuration, each file atomically."""
        folder = Path(folder)
        tensors = {k: v.half().contiguous() for k, v in self.projections.state_dict().items()}
        config = {**self.config, "towers": towers(self.embedder)}
        write_atomic(folder / "projections.safetensors", save(tensors))
        write_atomic(folder / "config.json", json.dumps(config, indent=1) + "\n")

    def image_embeddings(self, images: np.ndarray) -> np.ndarray:
        """(n, shared) float32 of unit length, of (n, H, H, 3) uint8 square images."""
        return self.project(reader.features(images))

    @torch.inference_mode()
    def project(self, features: np.ndarray) -> np.ndarray:
        """(n, shared) of unit length, of (n, image) vectors of `reader.features`."""
        return np.asarray(self.projections.images(torch.from_numpy(features)).numpy())

    @torch.inference_mode()
    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        """(n, shared) float32 of unit length."""
        vectors = torch.from_numpy(self.embedder(texts))
        return np.asarray(self.projections.texts(vectors).numpy())


def towers(embedder: Embedder) -> dict[str, str]:
    """Fingerprints of the two locked towers."""
    weights = (reader.WEIGHTS / "reader.safetensors").read_bytes()
    return {
        "reader": hashlib.sha256(weights).hexdigest()[:16],
        "sentence model": embedder.fingerprint,
    }


@lru_cache
def bundled_clip() -> LockedCLIP:
    """Evaluation's bundled CLIP, loaded once a process."""
    return LockedCLIP.load()


def load_clip(where: str | None = None) -> Scorer:
    """The bundled scorer, or an open_clip model by folder or hub id.

    Raises:
        BadInput: It cannot be loaded.
    """
    return bundled_clip() if where is None else OpenCLIP(where)


@lru_cache
def clip_card() -> dict:
    """The bundled CLIP's figures on held-out images, by concept."""
    return dict(yaml.safe_load((WEIGHTS / "card.yaml").read_text(encoding="utf-8")))

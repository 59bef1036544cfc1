"""A small CLIP: does the image fit these words better than other words of the same modality?

Built from open_clip's model classes with a compact vocabulary (Radford et al. 2021; open_clip).
Its similarities mean nothing alone; only the margin to contrasting captions is ever given. It
knows the concepts of `concepts.yaml` beside its weights and no others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.measure.reader import to_pixels
from medgen.records import Measurement

if TYPE_CHECKING:
    from open_clip.model import CLIP

WEIGHTS = Path(__file__).parent / "weights" / "clip"
CHECK = "image-text margin"


@dataclass(frozen=True)
class Concept:
    """Something the CLIP was taught: its modality, a caption, and the captions set against it.

    `least` is the margin from which it speaks for the caption; `accuracy` the figure on held-out
    images; `measurable` is false where there were too few or it was too low.
    """

    name: str
    modality: str
    text: str
    contrasts: list[str]
    least: float
    accuracy: str
    measurable: bool


def build(config: dict) -> CLIP:
    """An untrained model from `{"embed_dim", "vision_cfg", "text_cfg"}`."""
    # open_clip takes seconds to import, and many requests have nothing that the CLIP knows.
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision = CLIPVisionCfg(
        **{**config["vision_cfg"], "layers": tuple(config["vision_cfg"]["layers"])}
    )
    return CLIP(config["embed_dim"], vision, CLIPTextCfg(**config["text_cfg"]))


class CompactCLIP:
    """A trained CLIP with its tokenizer."""

    def __init__(self, model: CLIP, tokenizer: Tokenizer, config: dict) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.config = config
        self.size = int(config["vision_cfg"]["image_size"])
        self.context = int(config["text_cfg"]["context_length"])

    @classmethod
    def load(cls, folder: str | Path = WEIGHTS) -> CompactCLIP:
        """Read a CLIP from a folder written by `save`.

        Raises:
            BadInput: The folder has no readable configuration, tokenizer or weights.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            model = build(config)
            weights = load_file(folder / "clip.safetensors")
            model.load_state_dict({k: _widen(v) for k, v in weights.items()}, strict=False)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"no CLIP in {folder} ({reason}): train one with medgen.measure.train_clip"
            ) from error
        model.requires_grad_(False)
        return cls(model, tokenizer, config)

    def save(self, folder: str | Path) -> None:
        """Write fp16 weights, configuration and tokenizer, each file atomically."""
        tensors = {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in self.model.state_dict().items()
            if name != "attn_mask"
        }
        folder = Path(folder)
        write_atomic(folder / "clip.safetensors", save(tensors))
        write_atomic(folder / "config.json", json.dumps(self.config, indent=1) + "\n")
        write_atomic(folder / "tokenizer.json", self.tokenizer.to_str())

    def tokens(self, texts: list[str]) -> Tensor:
        """(n, context_length) token ids: words, then the end token, then zeros."""
        end = self.config["text_cfg"]["vocab_size"] - 1
        ids = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, encoding in zip(ids, self.tokenizer.encode_batch(texts), strict=True):
            words = [*encoding.ids[: self.context - 1], end]
            row[: len(words)] = torch.tensor(words)
        return ids

    @torch.inference_mode()
    def text_embeddings(self, texts: list[str]) -> np.ndarray:
        """(n, embed_dim) float32, L2-normalised."""
        features = self.model.encode_text(self.tokens(texts), normalize=True)
        return np.asarray(features.numpy())

    @torch.inference_mode()
    def image_embeddings(self, images: np.ndarray, batch: int = 64) -> np.ndarray:
        """(n, embed_dim) float32, L2-normalised, of (n, H, H, 3) uint8 square images."""
        pixels = to_pixels(images, self.size)
        parts = [
            F.normalize(self.model.encode_image(pixels[start : start + batch]), dim=-1)
            for start in range(0, len(pixels), batch)
        ]
        return torch.cat(parts).numpy()

    def margin(self, image: np.ndarray, text: str, contrasts: list[str]) -> float:
        """Cosine to the text minus the greatest cosine to a contrast, for one (H, H, 3) uint8."""
        if not contrasts:
            raise BadInput("a margin needs at least one contrasting caption: pass `contrasts`")
        similarities = (
            self.text_embeddings([text, *contrasts]) @ self.image_embeddings(image[None])[0]
        )
        return float(similarities[0] - similarities[1:].max())


@lru_cache
def bundled_clip() -> CompactCLIP:
    """The bundled CLIP, loaded once a process."""
    return CompactCLIP.load()


@lru_cache
def concepts() -> dict[str, Concept]:
    """What the bundled CLIP was taught, by canonical finding name."""
    document = yaml.safe_load((WEIGHTS / "concepts.yaml").read_text(encoding="utf-8"))
    return {name: Concept(name=name, **entry) for name, entry in document["concepts"].items()}


def alignment(
    image: np.ndarray,
    text: str,
    contrasts: list[str],
    accuracy: str | None = None,
    least: float = 0.0,
) -> Measurement:
    """How much better an image fits a caption than contrasting captions of its modality.

    Args:
        image: (H, H, 3) uint8, square.
        text: A caption such as `Concept.text`.
        contrasts: At least one caption that it is set against.
        accuracy: What is known of this comparison on held-out images.
        least: The margin from which it speaks for the caption (`Concept.least`).

    Returns:
        `image_text_margin` in cosine units (-2 to 2), above 0 when the text fits best.

    Raises:
        BadInput: No contrast, or an image of another shape or type.
    """
    return Measurement(
        name="image_text_margin",
        value=round(bundled_clip().margin(image, text, contrasts), 4),
        unit="cosine",
        expected=(least, None),
        check=CHECK,
        accuracy=accuracy,
    )


def _widen(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value

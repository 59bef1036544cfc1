"""Any open_clip model, BiomedCLIP for one, as an image-text scorer: from a folder or the hub.

Knows how to load one safely and how to embed; which texts are compared is the caller's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medgen.errors import BadInput


class OpenCLIP:
    """Any open_clip model, from a folder or from the Hugging Face hub."""

    def __init__(self, where: str) -> None:
        """Load a model.

        Args:
            where: A folder with `open_clip_config.json`, safetensors weights and, where the
                model has its own, a tokenizer; or a hub id such as
                "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224".

        Raises:
            BadInput: There is no such model, or it cannot be reached.
        """
        import open_clip

        folder = Path(where)
        if folder.is_dir():
            # open_clip would also unpickle a checkpoint: a folder from anywhere must not do that.
            if not list(folder.glob("*.safetensors")):
                raise BadInput(
                    f"{folder} has no safetensors weights: save the open_clip model there as "
                    "open_clip_model.safetensors"
                )
            source = f"local-dir:{folder}"
        else:
            source = f"hf-hub:{where.removeprefix('hf-hub:')}"
        try:
            self.model, self.preprocess = open_clip.create_model_from_pretrained(source)
            self.tokenizer = open_clip.get_tokenizer(source)
        # The hub's client, safetensors and open_clip each raise errors of their own.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"cannot load the open_clip model {where} ({reason}): give a folder with "
                "open_clip_config.json and safetensors weights, or a hub id while online"
            ) from error
        self.model.eval().requires_grad_(False)
        self.name = f"open_clip {folder.name if folder.is_dir() else where}"

    @torch.inference_mode()
    def image_embeddings(self, images: np.ndarray) -> np.ndarray:
        """(n, d) float32 of unit length, of (n, H, H, 3) uint8 images."""
        pixels = torch.stack([self.preprocess(Image.fromarray(image)) for image in images])
        return self.model.encode_image(pixels, normalize=True).float().numpy()

    @torch.inference_mode()
    def text_embeddings(self, texts: list[str], batch: int = 64) -> np.ndarray:
        """(n, d) float32 of unit length; what exceeds the model's context is cut."""
        parts = [
            self.model.encode_text(self.tokenizer(texts[start : start + batch]), normalize=True)
            for start in range(0, len(texts), batch)
        ]
        return torch.cat(parts).float().numpy()

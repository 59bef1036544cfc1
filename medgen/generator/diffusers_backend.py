"""The diffusers backend: any Stable-Diffusion-family folder or hub id as a generator.

For users with a GPU and weights of their own. Draws every modality that has a card; the structured
condition reaches it only through the prompt's words. Knows nothing of the compact model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    DiffusionPipeline,
)
from PIL import Image

from medgen.data.images import load_image
from medgen.errors import BadInput
from medgen.generator.sampling import DEFAULT_STRENGTH, blend
from medgen.knowledge.cards import modality_cards
from medgen.records import Conditioning


class DiffusersGenerator:
    """Wraps a text-to-image pipeline of diffusers (see `Generator`)."""

    reads_free_text = True

    def __init__(self, source: str, *, steps: int, guidance_scale: float):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if self.device == "cuda" else torch.float32
        try:
            self.pipeline: DiffusionPipeline = AutoPipelineForText2Image.from_pretrained(
                source, torch_dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(
                f"MEDGEN_BACKEND=diffusers:{source} does not load ({reason}): give a folder that "
                "holds model_index.json and safetensors weights, or a reachable hub id"
            ) from error
        self.pipeline.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        if getattr(self.pipeline, "safety_checker", None) is not None:
            # It was trained on photographs and blacks out medical images at random.
            self.pipeline.safety_checker = None
        self.img2img: DiffusionPipeline | None = None
        self.inpainting: DiffusionPipeline | None = None
        self.fingerprint = _fingerprint(source)
        self.name = f"diffusers:{Path(source).name}:{self.fingerprint}"
        self.modalities: tuple[str, ...] = tuple(modality_cards())
        self.steps = steps
        self.guidance_scale = guidance_scale

    def sample(self, conditionings: Sequence[Conditioning]) -> np.ndarray:
        """See `Generator.sample`; height and width are the pipeline's own."""
        for conditioning in conditionings:
            if conditioning.modality not in self.modalities:
                raise BadInput(
                    f"no modality card for {conditioning.modality}: add one "
                    "(MEDGEN_MODALITY_CARDS); there are " + ", ".join(self.modalities)
                )
        return np.stack([self._draw(conditioning) for conditioning in conditionings])

    def _draw(self, conditioning: Conditioning) -> np.ndarray:
        arguments: dict[str, Any] = {
            "prompt": conditioning.prompt,
            "negative_prompt": conditioning.negative_prompt or None,
            "num_inference_steps": conditioning.steps or self.steps,
            "guidance_scale": conditioning.guidance_scale or self.guidance_scale,
            "generator": torch.Generator("cpu").manual_seed(conditioning.seed),
            "output_type": "np",
        }
        if conditioning.mask_image and not conditioning.init_image:
            raise BadInput("mask_image needs init_image: the picture that is kept outside the mask")
        if not conditioning.init_image:
            pictures = self.pipeline(**arguments).images
        else:
            strength = conditioning.strength
            arguments["strength"] = DEFAULT_STRENGTH if strength is None else strength
            arguments["image"] = load_image(conditioning.init_image)
            if conditioning.mask_image:
                if self.inpainting is None:
                    self.inpainting = AutoPipelineForInpainting.from_pipe(self.pipeline)
                mask = load_image(conditioning.mask_image).convert("L")
                width, height = arguments["image"].size
                pictures = self.inpainting(
                    mask_image=mask, width=width, height=height, **arguments
                ).images
                if pictures[0].shape[:2] == (height, width):
                    # The pipeline keeps latents; the pixels outside shall be those given.
                    pictures = [_blended(pictures[0], arguments["image"], mask)]
            else:
                if self.img2img is None:
                    self.img2img = AutoPipelineForImage2Image.from_pipe(self.pipeline)
                pictures = self.img2img(**arguments).images
        return (np.asarray(pictures[0]) * 255).round().clip(0, 255).astype(np.uint8)


def _blended(drawn: np.ndarray, kept: Image.Image, mask: Image.Image) -> np.ndarray:
    def tensor(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.atleast_3d(pixels).astype(np.float32)).permute(2, 0, 1)[None]

    inside = np.asarray(mask.resize(kept.size, Image.Resampling.NEAREST)) > 127
    pixels = blend(tensor(drawn), tensor(np.asarray(kept) / 255), tensor(inside))
    return pixels[0].permute(1, 2, 0).numpy()


def _fingerprint(source: str) -> str:
    folder = Path(source)
    if not folder.is_dir():
        return hashlib.sha256(source.encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]

"""The diffusers backend: any Stable-Diffusion-family folder or hub id as a generator.

For users with a GPU and weights of their own. Draws every modality that has a card; the structured
condition reaches it only through the prompt's words. Knows nothing of the compact model.
"""

from __future__ import annotations

import hashlib
import json
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
    UNet2DConditionModel,
)
from PIL import Image

from medgen.data.images import load_image
from medgen.errors import BadInput
from medgen.generator.sampling import DEFAULT_STRENGTH, blend
from medgen.knowledge.cards import modality_cards
from medgen.records import Conditioning

LINEAGE = "finetuning.json"
"""Beside a fine-tuned U-Net or an adapter: its base, the hash of the base's U-Net, its config."""


class DiffusersGenerator:
    """Wraps a text-to-image pipeline of diffusers (see `Generator`)."""

    reads_free_text = True

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str,
        fingerprint: str,
        steps: int,
        guidance_scale: float,
    ) -> None:
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)
        if getattr(pipeline, "safety_checker", None) is not None:
            # It was trained on photographs and blacks out medical images at random.
            pipeline.safety_checker = None
        self.img2img: DiffusionPipeline | None = None
        self.inpainting: DiffusionPipeline | None = None
        self.name, self.fingerprint = name, fingerprint
        self.modalities: tuple[str, ...] = tuple(modality_cards())
        self.steps = steps
        self.guidance_scale = guidance_scale

    @classmethod
    def load(
        cls, source: str, *, tuned: Path | None, steps: int, guidance_scale: float
    ) -> DiffusersGenerator:
        """Load a pipeline, and over it what `medgen train` or MINIM fine-tuned.

        Args:
            source: Folder or hub id of a pipeline; or the folder of a fine-tuned `unet/` or of an
                adapter that says its base (`finetuning.json`).
            tuned: Such a folder, over `source`.
            steps: Sampling steps where a request gives none.
            guidance_scale: Guidance where a request gives none.

        Raises:
            BadInput: One of them does not load, or the base is not the one tuned on.
        """
        if tuned is None and (Path(source) / LINEAGE).is_file():
            tuned = Path(source)
            source = _lineage(tuned)["base"]
        folder = base_folder(source)
        cuda = torch.cuda.is_available()
        pipeline = load_pipeline(
            folder, f"MEDGEN_BACKEND=diffusers:{source}", torch.float16 if cuda else torch.float32
        )
        fingerprint = hash_files(folder)
        if tuned is not None:
            _tune(pipeline, tuned, folder)
            fingerprint = hashlib.sha256(f"{fingerprint}{hash_files(tuned)}".encode()).hexdigest()
        pipeline.to("cuda" if cuda else "cpu")
        fingerprint = fingerprint[:16]
        return cls(
            pipeline,
            name=f"diffusers:{Path(tuned or source).name}:{fingerprint}",
            fingerprint=fingerprint,
            steps=steps,
            guidance_scale=guidance_scale,
        )

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


def base_folder(source: str) -> Path:
    """The folder of a pipeline; a hub id's is that of its download.

    Raises:
        BadInput: Neither a folder nor a hub id that can be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(DiffusionPipeline.download(source, use_safetensors=True))
    except Exception as error:  # the hub's client raises whatever its transport does
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"diffusers:{source} is no folder and cannot be had from the hub ({reason[:150]})"
        ) from error


def load_pipeline(folder: Path, what: str, dtype: torch.dtype) -> Any:
    """Load a text-to-image pipeline from safetensors.

    Raises:
        BadInput: It does not load; `what` says whose setting that was.
    """
    try:
        return AutoPipelineForText2Image.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"{what} does not load ({reason}): give a folder that holds model_index.json and "
            "safetensors weights, or a reachable hub id"
        ) from error


def _lineage(tuned: Path) -> dict[str, Any]:
    path = tuned / LINEAGE
    try:
        lineage = json.loads(path.read_text(encoding="utf-8"))
        return {"base": lineage["base"], "base_unet": lineage["base_unet"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not what `medgen train` writes: {error!r}") from error


def _tune(pipeline: Any, tuned: Path, base: Path) -> None:
    """Put a fine-tuned U-Net or an adapter into a pipeline."""
    if (tuned / LINEAGE).is_file():
        trained_on = _lineage(tuned)["base_unet"]
        if trained_on != hash_files(base / "unet"):
            raise BadInput(
                f"{tuned} was trained on another base than {base} (its U-Net differs): give that "
                f"base, or remove {LINEAGE} to try it nevertheless"
            )
    try:
        if (tuned / "unet").is_dir():
            unet = UNet2DConditionModel.from_pretrained(
                tuned / "unet", torch_dtype=pipeline.unet.dtype, use_safetensors=True
            )
            pipeline.register_modules(unet=unet)
        else:
            pipeline.load_lora_weights(tuned, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"MEDGEN_TUNED={tuned} does not fit over {base} ({reason[:150]}): give a folder with "
            "a fine-tuned unet/ or pytorch_lora_weights.safetensors"
        ) from error


def hash_files(folder: Path) -> str:
    """SHA-256 (hex) over the safetensors of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

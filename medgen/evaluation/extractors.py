"""Feature extractors by name: the bundled encoder, Inception-v3, RadDINO, any vision model.

Each extractor's `name` says which weights it holds, because figures of different weights are
figures of different scorers. Weights that cannot be had are one line to the user, never a silent
substitute. Knows how to load and feed models; knows no metric.
"""

from __future__ import annotations

import hashlib
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medgen.errors import BadInput
from medgen.evaluation.context import Encoder
from medgen.evaluation.encoder import CompactEncoder, bundled_encoder

BUNDLED = "medgen"
INCEPTION = "inception"
# Short names of hub models. RadDINO: Perez-Garcia et al. 2025, doi:10.1038/s42256-024-00965-w.
HUB = {"rad-dino": "microsoft/rad-dino"}
PARTS = ("config.json", "preprocessor_config.json", "*.safetensors")
# torch-fidelity's own release of the 2015 weights is named by the start of its SHA-256.
OFFICIAL_INCEPTION = "6726825d"


@runtime_checkable
class Classifier(Encoder, Protocol):
    """An encoder that also names classes, as Inception Score needs."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Class logits (n, classes) of features (n, width)."""
        ...


def extractor(name: str | Path = BUNDLED) -> Encoder:
    """The feature extractor of a name.

    Args:
        name: "medgen" for the bundled encoder; "inception" for Inception-v3's 2048 pooled
            features (downloaded by torch-fidelity on first use) or "inception:FILE" for weights at
            hand (torch-fidelity's .pth, or its tensors as .safetensors); "rad-dino"; a folder with
            an encoder of medgen or a transformers vision model; or a Hugging Face model id.

    Raises:
        BadInput: Nothing goes by that name, or its weights cannot be had.
    """
    text = str(name)
    if text == BUNDLED:
        return bundled_encoder()
    if text == INCEPTION:
        return InceptionEncoder(None)
    if text.startswith(f"{INCEPTION}:"):
        return InceptionEncoder(Path(text.partition(":")[2]).expanduser())
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        if (folder / "encoder.safetensors").is_file():
            return CompactEncoder.load(folder)
        return VisionModelEncoder(str(folder))
    if text in HUB:
        return VisionModelEncoder(HUB[text])
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return VisionModelEncoder(text)
    raise BadInput(
        f"no feature extractor {text!r}: use {BUNDLED}, {INCEPTION}, {INCEPTION}:FILE, "
        f"{', '.join(HUB)}, a model's folder or a Hugging Face id (owner/model)"
    )


class InceptionEncoder:
    """Inception-v3 as FID has it (Heusel et al. 2017): torch-fidelity's port, 2048-d pool."""

    width = 2048

    def __init__(self, weights: Path | None) -> None:
        """Load torch-fidelity's network.

        Args:
            weights: A .safetensors or .pth file; None downloads torch-fidelity's own.

        Raises:
            BadInput: The weights are missing, damaged, not Inception's, or out of reach.
        """
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        def build(path: str | None) -> Any:
            return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path)

        try:
            if weights is None:
                self.net, digest = build(None), OFFICIAL_INCEPTION
            else:
                tensors, digest = _inception_tensors(weights)
                with tempfile.TemporaryDirectory() as folder:
                    copy = Path(folder) / "inception.pth"
                    torch.save(tensors, copy)
                    self.net = build(str(copy))
        except (OSError, RuntimeError, KeyError, ValueError, SafetensorError) as error:
            where = weights or "the network"
            raise BadInput(
                f"no Inception-v3 weights from {where} ({_reason(error)}): give "
                "inception:FILE with torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
            ) from error
        self.name = f"inception-v3 2048 ({digest})"
        self.device = _device()
        self.net.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, batch: int = 32) -> np.ndarray:
        """Features (n, 2048) float32 of (n, H, H, 3) uint8 images, resized as TensorFlow 1 did."""
        parts = [np.zeros((0, self.width), dtype=np.float32)]
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(np.ascontiguousarray(images[start : start + batch]))
            features = self.net(pixels.permute(0, 3, 1, 2).to(self.device))[0]
            parts.append(features.float().cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits (n, 1008) without their bias, which Inception Score is defined on."""
        weight = self.net.fc.weight.float().cpu()
        return (torch.from_numpy(np.asarray(features, np.float32)) @ weight.T).numpy()


class VisionModelEncoder:
    """A transformers vision model with its own image processor; pooled features."""

    def __init__(self, source: str) -> None:
        """Load from a folder or the hub; safetensors only, and no code from the repository.

        Raises:
            BadInput: The model cannot be had, or is no vision model.
        """
        from transformers import AutoImageProcessor, AutoModel

        local = Path(source).is_dir()
        folder = Path(source) if local else _from_hub(source)
        missing = [name for name in PARTS if not any(folder.glob(name))]
        if missing:
            raise BadInput(f"no vision model in {source}: it has no {' and no '.join(missing)}")
        try:
            self.processor = AutoImageProcessor.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            raise BadInput(
                f"cannot load the vision model {source} ({_reason(error)}): "
                "check its files, or use another extractor"
            ) from error
        self.net = model.eval().requires_grad_(False)
        self.device = _device()
        self.net.to(self.device)
        digest = _digest(sorted(folder.glob("*.safetensors")))
        self.name = f"{folder.resolve().name if local else source} ({digest})"
        try:
            self.width = int(self(np.zeros((1, 64, 64, 3), dtype=np.uint8)).shape[1])
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise BadInput(f"{source} gives no image features ({_reason(error)})") from error

    @torch.inference_mode()
    def __call__(self, images: np.ndarray, batch: int = 8) -> np.ndarray:
        """Features (n, width) float32 of (n, H, H, 3) uint8 images."""
        parts = [np.zeros((0, getattr(self, "width", 0)), dtype=np.float32)] * (not len(images))
        for start in range(0, len(images), batch):
            chosen = list(images[start : start + batch])
            inputs = self.processor(images=chosen, return_tensors="pt").to(self.device)
            parts.append(self._pooled(inputs["pixel_values"]).float().cpu().numpy())
        return np.concatenate(parts)

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        if hasattr(self.net, "get_image_features"):
            output = self.net.get_image_features(pixel_values=pixels)
        else:
            output = self.net(pixel_values=pixels)
        if isinstance(output, torch.Tensor):
            return output.flatten(1)
        if getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        return output.last_hidden_state[:, 0]


def _inception_tensors(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Tensors of a weights file and the start of its SHA-256; no pickle but the known one."""
    if not path.is_file():
        raise BadInput(f"no Inception-v3 weights at {path}: check the path")
    digest = _digest([path])
    if path.suffix == ".safetensors":
        return load_file(path), digest
    if digest != OFFICIAL_INCEPTION:
        raise BadInput(
            f"{path} is not torch-fidelity's weights file (SHA-256 begins {digest}, not "
            f"{OFFICIAL_INCEPTION}): give that file, or weights as .safetensors"
        )
    return torch.load(path, weights_only=True), digest


def _from_hub(source: str) -> Path:
    """Folder of a hub model: from the cache, or downloaded where the hub answers within seconds."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except HFValidationError as error:
        raise BadInput(f"{source!r} is no Hugging Face model id: write owner/model") from error
    except LocalEntryNotFoundError:
        pass
    try:
        # The hub client itself would try for minutes.
        with urllib.request.urlopen(constants.ENDPOINT, timeout=10):
            pass
        wanted = ["*.json", "*.safetensors"]
        return Path(snapshot_download(source, allow_patterns=wanted))
    except (OSError, HfHubHTTPError) as error:
        raise BadInput(
            f"{source} is not in the Hugging Face cache and cannot be downloaded "
            f"({_reason(error)}): give its folder instead"
        ) from error


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:8]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

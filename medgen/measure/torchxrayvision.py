"""TorchXRayVision's chest classifiers, from a folder of safetensors weights.

Their DenseNet (Cohen et al. 2022, MIDL; Apache-2.0) has torchvision's layout with one grey channel,
so that torchvision's class holds the weights and their package is not needed to read them. It is
needed once, to fetch and convert them: `python -m medgen.measure.torchxrayvision NAME FOLDER`, NAME
being one of theirs such as densenet121-res224-all. Only films of adults taught these weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.models import DenseNet

from medgen.data.images import write_atomic
from medgen.errors import BadInput

RANGE = 1024.0
"""Their films lie in -1024 to 1024."""
DENSENET121 = {"growth_rate": 32, "block_config": [6, 12, 24, 16], "num_init_features": 64}


class ChestClassifiers:
    """Classifiers of one folder.

    Attributes:
        name: The weights' name.
        pathologies: Their names, in the order of the outputs; empty for an output without meaning.
        card: AUC and calibration by pathology where measured (`card.yaml`), else empty.
    """

    def __init__(self, net: nn.Module, config: dict, card: dict) -> None:
        self.net = net.eval().requires_grad_(False)
        self.name = str(config["name"])
        self.pathologies: list[str] = list(config["pathologies"])
        points = config.get("operating_points") or [None] * len(self.pathologies)
        values = [float("nan") if point is None else float(point) for point in points]
        self.operating_points = torch.tensor(values)
        self.size = int(config.get("size", 224))
        self.card: dict[str, dict] = card

    @classmethod
    def load(cls, folder: str | Path) -> ChestClassifiers:
        """Read `config.json`, `model.safetensors` and, where there is one, `card.yaml`.

        Raises:
            BadInput: One of the first two is missing or does not fit the other.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            net = build(config["model"], len(config["pathologies"]))
            net.load_state_dict(
                {
                    name: value.float() if value.is_floating_point() else value
                    for name, value in load_file(folder / "model.safetensors").items()
                }
            )
            card = folder / "card.yaml"
            known = yaml.safe_load(card.read_text(encoding="utf-8")) if card.is_file() else {}
            return cls(net, config, dict(known))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"no TorchXRayVision weights in {folder} ({reason}): make the folder with "
                "python -m medgen.measure.torchxrayvision NAME FOLDER"
            ) from error

    @torch.inference_mode()
    def read(self, image: np.ndarray) -> dict[str, float]:
        """Their calibrated output by pathology, 0.5 at the operating point, of (H, H, 3) uint8."""
        grey = Image.fromarray(image).convert("L").resize((self.size, self.size))
        film = torch.from_numpy(np.asarray(grey, dtype=np.float32))[None, None]
        chances = self.net((film / 255 * 2 - 1) * RANGE).sigmoid()[0]
        moved = at_operating_points(chances, self.operating_points)
        return {
            name: float(value)
            for name, value in zip(self.pathologies, moved, strict=True)
            if name and not torch.isnan(value)
        }


def build(arguments: dict, outputs: int) -> nn.Module:
    """Torchvision's DenseNet with one grey channel."""
    net = DenseNet(
        growth_rate=int(arguments["growth_rate"]),
        block_config=tuple(arguments["block_config"]),
        num_init_features=int(arguments["num_init_features"]),
        num_classes=outputs,
    )
    width = int(arguments["num_init_features"])
    net.features.conv0 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
    return net


def at_operating_points(chances: Tensor, points: Tensor) -> Tensor:
    """(n,) probabilities scaled so that each operating point becomes 0.5; as they are where nan."""
    below = chances / (2 * points)
    above = 1 - (1 - chances) / (2 * (1 - points))
    moved = torch.where(chances < points, below, above)
    return torch.where(torch.isnan(points), chances, moved)


def convert(name: str, folder: str | Path) -> None:
    """Fetch their weights with their package and write them as a folder for `load`.

    Raises:
        BadInput: The package is not installed or knows no such weights.
    """
    try:
        import torchxrayvision
    except ImportError as error:
        raise BadInput(
            "converting needs TorchXRayVision: pip install 'medgen[torchxrayvision]', or copy "
            "a converted folder"
        ) from error
    if name not in torchxrayvision.models.model_urls or not name.startswith("densenet"):
        raise BadInput(f"TorchXRayVision has no DenseNet weights {name!r}: see its model list")
    net = torchxrayvision.models.DenseNet(weights=name)
    points = [None if value != value else value for value in net.op_threshs.tolist()]
    write_folder(net, name, list(net.pathologies), points, DENSENET121, folder)


def write_folder(
    net: nn.Module,
    name: str,
    pathologies: list[str],
    operating_points: list[float | None],
    arguments: dict,
    folder: str | Path,
    size: int = 224,
) -> None:
    """Write a classifier of their layout as a folder for `load`, each file whole or not at all."""
    tensors = {
        key: value.contiguous() for key, value in net.state_dict().items() if key != "op_threshs"
    }
    config = {
        "name": name,
        "pathologies": pathologies,
        "operating_points": operating_points,
        "model": arguments,
        "size": size,
    }
    write_atomic(Path(folder) / "model.safetensors", save(tensors))
    write_atomic(Path(folder) / "config.json", json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    convert(sys.argv[1], sys.argv[2])

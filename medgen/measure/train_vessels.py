"""Training of the retinal vessel segmenter on outlined vessels, with grouped cross-validation.

Run as `python -m medgen.measure.train_vessels configs/vessels.yaml`: prints Dice by fold and source
and the error of the vessel density, then trains on `split=train` and writes the weights.
"""

from __future__ import annotations

import csv
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from medgen.data.images import load_square, square
from medgen.measure.cross_validate_segmenter import bootstrap, dice
from medgen.measure.segmentation import build, save_segmenter
from medgen.measure.vessels import SIZE, field_of_view, to_field, vessel_density


@dataclass(frozen=True)
class VesselImages:
    """Photographs with outlined vessels; first axis is the photograph.

    `fields` (n, 256, 256) float32 as the segmenter sees them; `targets` (n, 256, 256) float32
    coverage 0-1; `views` (n, 256, 256) bool fields of view; the rest as in the manifest.
    """

    fields: np.ndarray
    targets: np.ndarray
    views: np.ndarray
    groups: list[str]
    splits: list[str]
    sources: list[str]


def read_vessel_images(data: Path) -> VesselImages:
    """All photographs of `masks.csv` with a vessel mask."""
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        manifest = {row["path"]: row for row in csv.DictReader(stream)}
    with (data / "masks.csv").open(newline="", encoding="utf-8") as stream:
        entries = [row for row in csv.DictReader(stream) if "vessel" in row["kind"]]
    fields, targets, views = [], [], []
    for entry in entries:
        image = load_square(data / entry["image"], SIZE)
        with Image.open(data / entry["mask"]) as mask:
            coverage = np.asarray(square(mask.convert("L").convert("RGB"), SIZE))[..., 0] / 255.0
        fields.append(to_field(image)[0])
        views.append(field_of_view(image))
        targets.append(coverage.astype(np.float32))
    rows = [manifest[entry["image"]] for entry in entries]
    return VesselImages(
        np.stack(fields),
        np.stack(targets),
        np.stack(views),
        [row["group"] for row in rows],
        [row["split"] for row in rows],
        [row["source"] for row in rows],
    )


def _crops(stack: Tensor, size: int, count: int, draws: torch.Generator) -> Tensor:
    """(count, 2, size, size) of (n, 2, H, H): random places, flips, quarter turns."""
    crops = []
    for _ in range(count):
        row = int(torch.randint(len(stack), (1,), generator=draws))
        top, left = torch.randint(SIZE - size + 1, (2,), generator=draws).tolist()
        crop = stack[row, :, top : top + size, left : left + size]
        # A vessel has no side, so that mirroring is allowed here.
        crop = torch.rot90(crop, int(torch.randint(4, (1,), generator=draws)), (1, 2))
        crops.append(crop.flip(2) if torch.rand(1, generator=draws) < 0.5 else crop)
    return torch.stack(crops)


def _degraded(fields: Tensor, draws: torch.Generator) -> Tensor:
    """Contrast, blur and noise, so that soft photographs are read too."""

    def column(low: float, high: float) -> Tensor:
        return torch.empty(len(fields), 1, 1, 1).uniform_(low, high, generator=draws)

    soft = F.interpolate(
        F.interpolate(fields, scale_factor=0.5, mode="bilinear", antialias=True),
        size=fields.shape[-2:],
        mode="bilinear",
    )
    fields = torch.where(column(0, 1) < 0.3, soft, fields) * column(0.6, 1.5)
    return fields + torch.empty_like(fields).normal_(generator=draws) * column(0, 0.4)


def fit(images: VesselImages, chosen: np.ndarray, config: dict) -> nn.Module:
    """Train on the chosen rows; returns the moving average of the weights."""
    torch.manual_seed(config["seed"])
    draws = torch.Generator().manual_seed(config["seed"])
    stack = torch.from_numpy(np.stack([images.fields[chosen], images.targets[chosen]], axis=1))
    model, average = build(config), build(config).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config["lr"], total_steps=config["steps"], pct_start=0.1
    )
    for step in range(1, config["steps"] + 1):
        crops = _crops(stack, config["crop"], config["batch"], draws)
        chances = model(_degraded(crops[:, :1], draws)).sigmoid().clamp(1e-5, 1 - 1e-5)
        wanted = crops[:, 1:]
        overlap = (chances * wanted).sum()
        soft_dice = (2 * overlap + 1) / (chances.sum() + wanted.sum() + 1)
        loss = F.binary_cross_entropy(chances, wanted) + 1 - soft_dice
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.98, step / (step + 10))
        for mean, value in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
    return average.eval()


@torch.inference_mode()
def figures(model: nn.Module, images: VesselImages, row: int) -> dict[str, float | str]:
    """Dice and the error of the density on one photograph."""
    view = images.views[row]
    chances = model(torch.from_numpy(images.fields[row])[None, None]).sigmoid()[0, 0].numpy()
    chances, wanted = chances * view, images.targets[row] * view
    return {
        "group": images.groups[row],
        "source": images.sources[row],
        "dice": dice(chances > 0.5, wanted > 0.5),
        "density error": abs(vessel_density(chances, view) - vessel_density(wanted, view)),
        "density": vessel_density(wanted, view),
    }


def _print(name: str, rows: list[dict[str, float | str]]) -> None:
    for figure in ("dice", "density error", "density"):
        print(name, figure, bootstrap(rows, figure), flush=True)


def main(path: str) -> None:
    """Cross-validate, train on `split=train`, write the weights."""
    config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    images = read_vessel_images(Path(config["data"]))
    folds = np.array(
        [zlib.crc32(f"vessels {group}".encode()) % config["folds"] for group in images.groups]
    )
    rows: list[dict[str, float | str]] = []
    for fold in range(config["folds"]):
        started = time.process_time()
        model = fit(
            images, np.flatnonzero(folds != fold), {**config, "seed": config["seed"] + fold}
        )
        rows += [figures(model, images, int(row)) for row in np.flatnonzero(folds == fold)]
        print(f"fold {fold}: {time.process_time() - started:.0f} s processor time", flush=True)
        _print("so far", rows)
    for source in sorted(set(images.sources)):
        _print(source, [row for row in rows if row["source"] == source])
    train = np.array([split == "train" for split in images.splits])
    model = fit(images, np.flatnonzero(train), config)
    _print("split=test", [figures(model, images, int(row)) for row in np.flatnonzero(~train)])
    save_segmenter(model, config, config["out"])


if __name__ == "__main__":
    main(sys.argv[1])

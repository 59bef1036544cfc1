"""Technical image quality: is this an image that could have come from a scanner at all?

Exposure, contrast, sharpness, noise, blankness, padding and colour, each judged against the range
of real training images of the same modality (`ranges.yaml`, written by `measure_ranges`). Knows
no anatomy and no finding; a sharp, well-exposed image of the wrong thing passes.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import yaml
from scipy import ndimage

from medgen.data.images import write_atomic
from medgen.errors import BadInput
from medgen.records import Measurement, Quality

RANGES = Path(__file__).parent / "weights" / "quality" / "ranges.yaml"
SIDE = 128
UNITS = {
    "brightness": "grey levels",
    "contrast": "grey levels",
    "dark_clipping": "fraction",
    "bright_clipping": "fraction",
    "sharpness": "ratio",
    "noise": "grey levels",
    "padding": "fraction",
    "colour": "grey levels",
    "distinct_levels": "grey levels",
}


def quantities(image: np.ndarray) -> dict[str, float]:
    """The raw quantities of one image.

    Args:
        image: (H, H, 3) uint8, square, H a multiple of 128 or at least 128.

    Returns:
        Name to value, in the units of `UNITS`. Sharpness is the Laplacian's standard deviation
        over the grey values' own, at 128x128; noise is Immerkaer's (1996) estimate there; padding
        is the share of outer rows and columns that are flat; colour the mean spread of channels.

    Raises:
        BadInput: Another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadInput(
            f"image must be uint8 of shape (H, W, 3), not {image.dtype} {image.shape}: "
            "load it with medgen.data.images.load_square"
        )
    if image.shape[0] != image.shape[1] or image.shape[0] < SIDE:
        raise BadInput(
            f"image is {image.shape[1]}x{image.shape[0]} pixels, not square or under {SIDE}: "
            "square it first (medgen.data.images.load_square)"
        )
    colour = image.astype(np.float32)
    grey = colour.mean(axis=2)
    small = _reduce(grey)
    spread = float(small.std())
    laplacian = ndimage.laplace(small)[1:-1, 1:-1]
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    residual = ndimage.convolve(small, kernel)[1:-1, 1:-1]
    return {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "dark_clipping": float((grey <= 2).mean()),
        "bright_clipping": float((grey >= 253).mean()),
        "sharpness": float(laplacian.std()) / max(spread, 1.0),
        "noise": float(np.sqrt(np.pi / 2) / 6 * np.abs(residual).mean()),
        "padding": _padding(small),
        "colour": float((colour.max(axis=2) - colour.min(axis=2)).mean()),
        "distinct_levels": float(len(np.unique(image.mean(axis=2).round().astype(np.uint8)))),
    }


def _reduce(grey: np.ndarray) -> np.ndarray:
    factor = grey.shape[0] / SIDE
    if factor == int(factor):
        step = int(factor)
        return grey.reshape(SIDE, step, SIDE, step).mean(axis=(1, 3))
    return np.asarray(ndimage.zoom(ndimage.gaussian_filter(grey, factor / 2), 1 / factor, order=1))


def _padding(small: np.ndarray) -> float:
    """Share of the frame outside the bounding box of rows and columns that vary."""
    rows = np.flatnonzero(small.std(axis=1) > 1.5)
    columns = np.flatnonzero(small.std(axis=0) > 1.5)
    if len(rows) == 0 or len(columns) == 0:
        return 1.0
    inside = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return float(1.0 - inside / small.size)


@lru_cache
def quality_ranges() -> dict[str, dict[str, dict]]:
    """By modality and quantity: `low`, `high`, `hard_low`, `hard_high`, and which ends count."""
    text = resources.files("medgen.measure").joinpath("weights/quality/ranges.yaml")
    document = yaml.safe_load(text.read_text(encoding="utf-8"))
    return dict(document["modalities"])


def measure_quality(image: np.ndarray, modality: str) -> Quality:
    """Judge one image against real images of its modality.

    Args:
        image: (H, H, 3) uint8, square, at least 128 pixels a side.
        modality: A modality's name; for one without ranges only blankness is judged.

    Returns:
        `score` is 1 inside every range and falls to 0 where a quantity is as far out as no real
        training image was; `problems` names what lies there, "blank image" first of all.
    """
    values = quantities(image)
    ranges = quality_ranges()
    known = ranges.get(modality, ranges["any"])
    worst = 1.0
    problems: list[str] = []
    measurements = []
    for name, limits in known.items():
        value = values[name]
        score = _inside(value, limits)
        worst = min(worst, score)
        if score == 0.0:
            low = value < (limits["low"] if limits["low"] is not None else -np.inf)
            problems.append(limits["below" if low else "above"])
        measurements.append(
            Measurement(
                name=name,
                value=round(value, 4),
                unit=UNITS[name],
                expected=(limits["low"], limits["high"]),
                check="quality",
                accuracy=limits["accuracy"],
            )
        )
    problems.sort(key=lambda problem: problem != "blank image")
    return Quality(score=worst, problems=problems, measurements=measurements)


def _inside(value: float, limits: dict) -> float:
    """1 within [low, high], linear down to 0 at [hard_low, hard_high]; null ends do not count."""
    score = 1.0
    for near, far, sign in (("low", "hard_low", 1), ("high", "hard_high", -1)):
        if limits[near] is None:
            continue
        beyond = sign * (limits[near] - value)
        if beyond > 0:
            room = sign * (limits[near] - limits[far])
            score = min(score, max(0.0, 1.0 - beyond / room) if room > 0 else 0.0)
    return score


# Which ends of which quantity are a fault, what it is called, and the ends' slack as a share.
_FAULTS: dict[str, tuple[str | None, str | None]] = {
    "brightness": ("underexposed", "overexposed"),
    "contrast": ("low contrast", "excessive contrast"),
    "bright_clipping": (None, "clipped highlights"),
    "sharpness": ("blurred", "unnaturally sharp or noisy"),
    "noise": (None, "noisy"),
    "padding": (None, "mostly padding"),
    "colour": ("no colour in a colour modality", "colour in a grey modality"),
    "distinct_levels": ("blank image", None),
}
GREY_COLOUR_LIMIT = (2.0, 6.0)
BLANK_LEVELS = 24.0


def measure_ranges(
    images: np.ndarray, modalities: list[str], colour: set[str], slack: float = 0.5
) -> dict:
    """Ranges from real training images: 1st to 99th percentile, hard limits `slack` spans beyond.

    Args:
        images: (n, H, H, 3) uint8.
        modalities: Name of each image's modality.
        colour: The modalities that are in colour; elsewhere colour has a fixed upper limit.
        slack: How far beyond the percentile an image is called faulty, in units of the span
            between median and that percentile; at the low end not below half that percentile.

    Returns:
        The document of `ranges.yaml`.
    """
    table: dict[str, dict] = {}
    names = np.array(modalities)
    for modality in sorted(set(modalities)):
        chosen = images[names == modality]
        values = [quantities(image) for image in chosen]
        table[modality] = {}
        for name, (below, above) in _FAULTS.items():
            column = np.array([value[name] for value in values])
            low, middle, high = np.percentile(column, [1, 50, 99])
            limits = {
                "low": low if below else None,
                "high": high if above else None,
                "hard_low": max(low - slack * (middle - low), low / 2) if below else None,
                "hard_high": high + slack * max(high - middle, 1e-3) if above else None,
            }
            if name == "colour" and modality not in colour:
                limits = dict.fromkeys(limits)
                limits["high"], limits["hard_high"] = GREY_COLOUR_LIMIT
            if name == "padding":
                limits["high"] = max(high, 0.1)
                limits["hard_high"] = max(float(column.max()), 0.25) + 0.05
            if name == "distinct_levels":
                limits["hard_low"] = BLANK_LEVELS
            table[modality][name] = {
                **{key: None if v is None else round(float(v), 4) for key, v in limits.items()},
                "below": below,
                "above": above,
                "accuracy": f"1st-99th percentile of {len(chosen)} real images",
            }
    table["any"] = {
        "distinct_levels": {
            "low": 32.0,
            "high": None,
            "hard_low": BLANK_LEVELS,
            "hard_high": None,
            "below": "blank image",
            "above": None,
            "accuracy": "set by hand",
        }
    }
    return {"percentiles": [1, 99], "slack": slack, "modalities": table}


def write_ranges(table: str, images: str, source: str, path: Path = RANGES) -> None:
    """Measure the ranges on the training rows of a table and write them with their source."""
    from medgen.measure.train_reader import fold, read_table

    rows = read_table(table)
    packed = np.load(images, mmap_mode="r")
    chosen = [i for i, row in enumerate(rows) if fold(row) == "train"]
    document = measure_ranges(packed[chosen], [rows[i]["modal"] for i in chosen], {"Fundus"})
    text = yaml.safe_dump({"source": source, **document}, sort_keys=False, allow_unicode=True)
    write_atomic(path, text)


if __name__ == "__main__":
    import sys

    write_ranges(sys.argv[1], sys.argv[2], " ".join(sys.argv[3:]))

"""The card of a dataset: datasheet.md, datasheet.html and croissant.json, from its own records.

Everything in it was counted from the manifest or stated by the weights' and checks' own cards.
Written again, it is the same bytes. Knows no engine; a dataset that was merged has one too.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

import medgen.generator
from medgen.data.dataset_figures import DatasetStats
from medgen.data.dataset_folder import Dataset, open_dataset
from medgen.data.dataset_stats import measure, silent
from medgen.data.exports.items import Progress
from medgen.data.images import SYNTHETIC_NOTICE, write_atomic
from medgen.errors import BadInput
from medgen.graphs import croissant, datasheet_pictures
from medgen.measure.memorisation import bundled_index
from medgen.records import Record

MARKDOWN, PAGE, PICTURES = "datasheet.md", "datasheet.html", "datasheet"
LICENCE = "CC BY-NC-SA 4.0"
LICENCE_URL = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
NOT_FOR = (
    "Diagnosis, triage, treatment or any other decision about a patient.",
    "The only test set of a model that is to be used on real images: what a model does on drawn "
    "images does not tell what it does on real ones. Test on real images.",
    "Claims about how common a finding, a side, an age or a sex is: counts are as asked for.",
    "Teaching people what a disease looks like, without real images beside these.",
    "Commercial use, as long as the images fall under the terms of the bundled weights.",
    "Passing for images of real patients. The notice in each file must stay.",
)


class CardFiles(Record):
    """What `medgen dataset card --json` prints; paths are absolute."""

    dataset: str
    files: list[str]


@dataclass(frozen=True)
class Weights:
    """The weights that drew the images: their hash, and their card's sources when bundled."""

    fingerprint: str
    bundled: bool
    sources: list[list[str]]


def write_card(folder: str | Path, progress: Progress = silent) -> CardFiles:
    """Write the card of a dataset into its folder.

    Args:
        folder: A dataset's.
        progress: Told how many rows were read.

    Raises:
        BadInput: The folder holds no dataset, or one of its images cannot be read.
    """
    dataset = open_dataset(folder)
    stats = measure(dataset, progress)
    pictures = _pictures(dataset, stats)
    facts = _facts(dataset, stats, list(pictures))
    texts: dict[str, bytes | str] = {
        **{f"{PICTURES}/{name}": data for name, data in pictures.items()},
        MARKDOWN: _render("datasheet.md.j2", facts, lambda name: f"{PICTURES}/{name}"),
        PAGE: _render("datasheet.html.j2", facts, lambda name: _data_uri(pictures[name])),
        croissant.FILE: croissant.croissant(dataset, stats, LICENCE_URL, list(NOT_FOR)),
    }
    try:
        written = [write_atomic(dataset.folder / name, text) for name, text in texts.items()]
    except OSError as error:
        raise BadInput(f"cannot write to {dataset.folder} ({error.strerror})") from error
    return CardFiles(dataset=str(dataset.folder), files=[str(path) for path in written])


def _pictures(dataset: Dataset, stats: DatasetStats) -> dict[str, bytes]:
    """The PNG files of a datasheet by name; only those that have something to show."""
    sampler = datasheet_pictures.Sampler()
    drawn: dict[str, list[float]] = {}
    for row in dataset.rows("accepted"):
        sampler.see(row, dataset.file(row))
        if row.nearest_distance is not None:
            drawn.setdefault(row.modality, []).append(row.nearest_distance)
    pictures = {"balance.png": datasheet_pictures.balance_plot(stats)}
    if stats.images:
        pictures["properties.png"] = datasheet_pictures.property_plot(stats.counts)
        pictures["samples.png"] = datasheet_pictures.grid(sampler)
    if drawn:
        known = bundled_index().calibration
        pictures["nearness.png"] = datasheet_pictures.nearness_plot(
            dict(sorted(drawn.items())),
            {modality: entry["distances"] for modality, entry in known.items()},
            {modality: entry["threshold"] for modality, entry in known.items()},
        )
    return pictures


def _facts(dataset: Dataset, stats: DatasetStats, pictures: list[str]) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "stats": stats,
        "origin": _flat(dataset.origin),
        "pictures": pictures,
        "notice": SYNTHETIC_NOTICE,
        "licence": LICENCE,
        "licence_url": LICENCE_URL,
        "not_for": NOT_FOR,
        "weights": [_weights(one) for one in stats.generators],
        "memorisation": {
            modality: entry["accuracy"]
            for modality, entry in bundled_index().calibration.items()
            if modality in stats.balance
        },
    }


def _flat(origin: dict[str, Any]) -> dict[str, str]:
    """What `dataset.json` says, a word or number a line; nulls left out."""
    told: dict[str, str] = {}
    for key, value in origin.items():
        if isinstance(value, dict):
            told |= {f"{key}, {name}": str(inner) for name, inner in value.items()}
        elif isinstance(value, list):
            told[key] = ", ".join(map(str, value))
        elif value is not None:
            told[key] = str(value)
    return told


def _weights(fingerprint: str) -> Weights:
    from medgen.generator.compact import fingerprint_folder

    folder = Path(medgen.generator.__file__).parent / "weights" / "compact"
    if not folder.is_dir() or fingerprint_folder(folder) != fingerprint:
        return Weights(fingerprint, bundled=False, sources=[])
    return Weights(fingerprint, bundled=True, sources=_sources(folder / "MODEL_CARD.md"))


def _sources(card: Path) -> list[list[str]]:
    """The table of the card's section on data, header first."""
    section = re.search(r"^## Data$(.*?)^## ", card.read_text(encoding="utf-8"), re.M | re.S)
    lines = section.group(1).splitlines() if section else []
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    return [row for row in table if set("".join(row)) - set("-: ")]


def _render(name: str, facts: dict[str, Any], picture: Any) -> str:
    environment = Environment(
        undefined=StrictUndefined,
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    template = resources.files("medgen.graphs").joinpath("templates", name)
    text = environment.from_string(template.read_text(encoding="utf-8"))
    return text.render(**facts, picture=picture)


def _data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"

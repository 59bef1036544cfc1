"""One dataset in one of the field's formats: whole, or not there at all.

Knows which formats there are and what every export carries beside its images (a README with the
notice, the licence and how to read it); the formats themselves are modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module, resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from pydantic import Field

from medgen.data.dataset_folder import WHICH, Dataset, Which
from medgen.data.dataset_stats import silent
from medgen.data.exports.items import Item, Progress, counted, items
from medgen.data.folders import new_folder
from medgen.data.images import SYNTHETIC_NOTICE
from medgen.errors import BadInput
from medgen.records import Record

Writer = Callable[[Iterable[Item], Path], None]
# The module and function of each format; modules are loaded when asked for.
FORMATS = {
    "minim-csv": "tables.write_minim",
    "imagefolder": "imagefolder.write_imagefolder",
    "webdataset": "webdataset.write_webdataset",
    "chexgenbench": "tables.write_chexgenbench",
    "dicom": "dicom_files.write_dicom",
    "parquet": "embedded_parquet.write_parquet",
}


class Exported(Record):
    """What `medgen dataset export --json` prints; `out` is absolute."""

    dataset: str
    format: str
    out: str
    images: int
    splits: dict[str, int] = Field(default_factory=dict)


def export(
    dataset: Dataset,
    format: str,
    out: str | Path,
    which: str = "accepted",
    modality: str | None = None,
    progress: Progress = silent,
) -> Exported:
    """Write a dataset in another format.

    Args:
        dataset: Opened.
        format: One of `FORMATS`.
        out: A new folder.
        which: "accepted", "rejected" or "all" images.
        modality: Only images of this modality card.
        progress: Told how many images are written.

    Raises:
        BadInput: The format or choice is unknown, nothing is left to write, `out` is there
            already, or a file is not what the manifest says; nothing was written then.
        MedgenError: The disk is full or the folder cannot be written.
    """
    if format not in FORMATS:
        raise BadInput(f"--format {format} is unknown: use {', '.join(FORMATS)}")
    if which not in WHICH:
        raise BadInput(f"--include {which} is unknown: use {', '.join(WHICH)}")
    splits = _count(dataset, which, modality)
    total = sum(splits.values())
    if not total:
        raise BadInput(_nothing(dataset, which, modality))
    write = _writer(format)
    with new_folder(out) as folder:
        write(counted(items(dataset, which, modality), total, progress), folder)
        (folder / "README.md").write_text(_readme(dataset, format, splits), encoding="utf-8")
    return Exported(
        dataset=str(dataset.folder),
        format=format,
        out=str(Path(out).expanduser().resolve()),
        images=total,
        splits=splits,
    )


def _writer(format: str) -> Writer:
    module, function = FORMATS[format].split(".")
    found: Writer = getattr(import_module(f"medgen.data.exports.{module}"), function)
    return found


def _count(dataset: Dataset, which: Which, modality: str | None) -> dict[str, int]:
    splits: dict[str, int] = {}
    for item in items(dataset, which, modality):
        splits[item.split] = splits.get(item.split, 0) + 1
    return dict(sorted(splits.items()))


def _nothing(dataset: Dataset, which: str, modality: str | None) -> str:
    known = sorted({row.modality for row in dataset.rows()})
    chosen = f"{which} " if which != "all" else ""
    of = f" of {modality}" if modality else ""
    return (
        f"{dataset.folder} has no {chosen}image{of}: its modalities are "
        f"{', '.join(known) or 'none'}"
    )


def _readme(dataset: Dataset, format: str, splits: dict[str, int]) -> str:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = resources.files("medgen.data.exports").joinpath("readme.md.j2")
    return environment.from_string(text.read_text(encoding="utf-8")).render(
        name=dataset.name,
        format=format,
        splits=splits,
        notice=SYNTHETIC_NOTICE,
        origin=dataset.origin,
    )

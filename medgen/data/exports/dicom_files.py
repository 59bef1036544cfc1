"""A dataset as DICOM files: a Secondary Capture and an Enhanced SR for each image, and a table."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from medgen.data.exports.items import Item
from medgen.data.exports.secondary_capture import (
    Described,
    encoded,
    secondary_capture,
)
from medgen.data.formats import write_rows
from medgen.errors import BadInput

IMAGES, REPORTS, TABLE = "images", "reports", "index.csv"


def write_dicom(found: Iterable[Item], out: Path) -> None:
    """`images/NAME.dcm`, `reports/NAME.dcm` and `index.csv`, which medgen reads as a table.

    UIDs follow from an image's bytes, id and seed; dates are the dataset's. So the same dataset
    has the same files again, and another dataset's never share a UID with them.

    Raises:
        BadInput: highdicom is missing.
    """
    _require_highdicom()
    from medgen.data.exports.structured_report import structured_report

    (out / IMAGES).mkdir()
    (out / REPORTS).mkdir()
    rows = []
    for item in found:
        described = _described(item)
        image = secondary_capture(_pixels(item), described)
        report = structured_report(image, item.row, described)
        path = out / IMAGES / f"{item.name}.dcm"
        path.write_bytes(encoded(image))
        (out / REPORTS / path.name).write_bytes(encoded(report))
        rows.append(
            {
                "path": str(path),
                "text": item.row.prompt,
                "modal": item.row.modality,
                "label": item.row.label,
                "split": item.split,
                "group": item.row.group,
                "report": f"{REPORTS}/{path.name}",
                "sop_instance_uid": str(image.SOPInstanceUID),
                "study_instance_uid": str(image.StudyInstanceUID),
            }
        )
    write_rows(rows, out / TABLE)


def _described(item: Item) -> Described:
    row, maker = item.row, version("medgen")
    derivation = (
        f"Synthetic: drawn from text by medgen {maker}, weights {row.generator}"
        f"{f', adapter {row.adapter}' if row.adapter else ''}, seed {row.seed}, {row.steps} steps, "
        f"guidance {row.guidance:g}. No patient was imaged. Not for diagnosis."
    )
    return Described(
        id=item.name,
        key="\x1f".join((row.sha256, item.name, str(row.seed))),
        modality=row.modality,
        prompt=row.prompt,
        label=row.label,
        derivation=derivation,
        maker=maker,
        made=item.made,
        sex=row.sex or "",
        age=row.age,
    )


def _pixels(item: Item) -> np.ndarray:
    """(height, width, 3) uint8."""
    with Image.open(BytesIO(item.read())) as picture:
        return np.asarray(picture.convert("RGB"))


def _require_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise BadInput('DICOM exports need highdicom: pip install "medgen[dicom]"') from error

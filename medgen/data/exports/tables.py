"""Exports of images beside one table: MINIM's and CheXGenBench's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medgen.data.exports.items import Item
from medgen.data.formats import CHEXGENBENCH_MODAL, write_rows
from medgen.errors import BadInput


def write_minim(found: Iterable[Item], out: Path) -> None:
    """`minim.csv` (`path,text,modal`) beside `images/`; `medgen.csv` has label, group and split.

    MINIM's loader knows the three columns alone. Source: the tables in the MINIM repository.
    """
    rows = []
    for item in found:
        target = out / "images" / f"{item.name}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(item.read())
        row = item.row
        rows.append(
            {
                "path": str(target),
                "text": row.prompt,
                "modal": row.modality,
                "label": row.label,
                "split": item.split,
                "group": row.group,
            }
        )
    write_rows(rows, out / "minim.csv", "minim")
    write_rows(rows, out / "medgen.csv")


def write_chexgenbench(found: Iterable[Item], out: Path) -> None:
    """`assets/CSV/prompt_INFO.csv` beside `assets/synthetic_images/`, as CheXGenBench expects.

    Its table names files by their bare names, so the rows' paths are given as if they lay beside
    the table.

    Raises:
        BadInput: An image is no chest X-ray.
    """
    tables, images = out / "assets" / "CSV", out / "assets" / "synthetic_images"
    tables.mkdir(parents=True)
    images.mkdir()
    rows = []
    for item in found:
        if item.row.modality != CHEXGENBENCH_MODAL:
            raise BadInput(
                f"{item.name} is {item.row.modality}: CheXGenBench knows {CHEXGENBENCH_MODAL} "
                f'only, export with --modality "{CHEXGENBENCH_MODAL}"'
            )
        name = f"{item.name}.png"
        (images / name).write_bytes(item.read())
        rows.append(
            {"path": str(tables / name), "text": item.row.prompt, "modal": item.row.modality}
        )
    write_rows(rows, tables / "prompt_INFO.csv", "chexgenbench")

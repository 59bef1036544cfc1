"""Image-text tables in the field's formats, in and out: medgen's own, MINIM's, CheXGenBench's.

A table is read row by row into `path,text,modal` and whatever other columns it has. MINIM writes
`Text` or `modality`, and leaves commas in texts unquoted; CheXGenBench's `prompt_INFO.csv` has
`prompt,img_savename` and is about chest X-rays only. Knows CSV and Parquet; opens no image.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medgen.data.images import write_atomic
from medgen.errors import BadInput

Form = Literal["medgen", "minim", "chexgenbench"]
FORMS: tuple[Form, ...] = ("medgen", "minim", "chexgenbench")
NEEDED = ("path", "text", "modal")
# Other people's names of the needed columns, in lower case.
ALIASES = {
    "path": ("image_path", "image", "img_savename"),
    "text": ("caption", "prompt", "annotated_prompt"),
    "modal": ("modality",),
}
CHEXGENBENCH_MODAL = "Chest X-ray"
# Where CheXGenBench keeps the images of assets/CSV/prompt_INFO.csv.
CHEXGENBENCH_IMAGES = Path("..") / "synthetic_images"


@dataclass
class Reading:
    """What was understood and repaired while a table was read; complete after its last row.

    `row` is the number of the row that was yielded last, the header being 1 and blank rows counted.
    """

    form: Form = "medgen"
    columns: tuple[str, ...] = ()
    row: int = 1
    repaired: list[int] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """One line for each kind of repair."""
        if not self.repaired:
            return []
        some = ", ".join(map(str, self.repaired[:5])) + ("..." if len(self.repaired) > 5 else "")
        return [
            f"{len(self.repaired)} rows had unquoted commas in their text and were repaired "
            f"(rows {some})"
        ]


def read_rows(
    path: str | Path, reading: Reading | None = None, *, located: bool = True
) -> Iterator[dict[str, str]]:
    """Read a table row by row, in constant memory.

    Args:
        path: A CSV or Parquet file in one of the forms above. The first line is row 1.
        reading: Is told what form it was and what was repaired.
        located: Make `path` absolute, taken from the table's folder when relative; else it stays
            as written, a key for other tables.

    Yields:
        Columns by name, stripped.

    Raises:
        BadInput: No such file, no table, a needed column is missing, or a row cannot be read.
    """
    path = Path(path)
    reading = reading if reading is not None else Reading()
    if not path.is_file():
        raise BadInput(f"no table at {path}: check the path")
    rows = _parquet(path, reading) if path.suffix.lower() == ".parquet" else _csv(path, reading)
    names: dict[str, str] | None = None
    for row in rows:
        if names is None:
            names = _names(row, path, reading)
        values = {names[key]: value.strip() for key, value in row.items()}
        values.setdefault("modal", CHEXGENBENCH_MODAL)
        if located:
            values["path"] = locate(values["path"], path.parent, reading.form)
        yield values


def write_rows(rows: Iterable[Mapping[str, str]], path: str | Path, form: Form = "medgen") -> Path:
    """Write a table in one of the forms, whole or not at all.

    Args:
        rows: Rows with at least `path,text,modal`.
        path: The CSV file to write. Image paths become relative to its folder where both are on
            one drive, so that folder and images can be moved together.
        form: "minim" has `path,text,modal` alone; "chexgenbench" `prompt,img_savename`.

    Raises:
        BadInput: A row of another modality than chest X-ray is to be written for CheXGenBench.
    """
    path = Path(path)
    listed = [dict(row) for row in rows]
    more = list(dict.fromkeys(key for row in listed for key in row if key not in NEEDED))
    columns = {
        "medgen": [*NEEDED, *more],
        "minim": list(NEEDED),
        "chexgenbench": ["prompt", "img_savename"],
    }[form]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(listed, start=2):
        if form == "chexgenbench" and row["modal"] != CHEXGENBENCH_MODAL:
            raise BadInput(
                f"row {number} is {row['modal']}: CheXGenBench knows {CHEXGENBENCH_MODAL} only, "
                "leave other modalities out"
            )
        image = _relative(row["path"], path.parent)
        if form == "chexgenbench":
            writer.writerow({"prompt": row["text"], "img_savename": image})
        else:
            writer.writerow({**row, "path": image})
    return write_atomic(path, text.getvalue())


def _csv(path: Path, reading: Reading) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.reader(stream)
            header = [name.strip() for name in next(lines, [])]
            lower = [name.lower() for name in header]
            texts = [i for i, name in enumerate(lower) if name in ("text", *ALIASES["text"])]
            for number, cells in enumerate(lines, start=2):
                if not any(cell.strip() for cell in cells):
                    continue
                excess = len(cells) - len(header)
                if excess > 0 and len(texts) == 1:
                    at = texts[0]
                    cells[at : at + excess + 1] = [",".join(cells[at : at + excess + 1])]
                    reading.repaired.append(number)
                elif excess > 0:
                    raise BadInput(
                        f"{path}, row {number} has {len(cells)} cells for {len(header)} columns: "
                        "put quotes around texts with commas"
                    )
                cells += [""] * (len(header) - len(cells))
                reading.row = number
                yield dict(zip(header, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot read {path} as a CSV table ({error})") from error


def _parquet(path: Path, reading: Reading) -> Iterator[dict[str, str]]:
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=4096):
            frame = batch.to_pandas()
            # As objects, for columns of numbers or categories cannot hold the "" of a gap.
            for record in frame.astype(object).where(frame.notna(), "").to_dict("records"):
                reading.row += 1
                yield {str(key): _text(value) for key, value in record.items()}
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"cannot read {path} as a Parquet table ({reason})") from error


def _text(value: object) -> str:
    """A cell as CSV has it: integers with a gap among them are floats in Parquet, 1.0 for 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _names(row: Mapping[str, str], path: Path, reading: Reading) -> dict[str, str]:
    """The table's column names as ours; refuses a table without the needed ones."""
    lower = {name: name.lower() for name in row}
    names = dict(lower)
    for needed, others in ALIASES.items():
        if needed in lower.values():
            continue
        for other in others:
            found = [name for name, value in lower.items() if value == other]
            if found:
                names[found[0]] = needed
                break
    if "img_savename" in lower.values() and "modal" not in names.values():
        reading.form = "chexgenbench"
    elif "Text" in row or "modality" in lower.values():
        reading.form = "minim"
    have = set(names.values()) | ({"modal"} if reading.form == "chexgenbench" else set())
    missing = [column for column in NEEDED if column not in have]
    if missing:
        raise BadInput(
            f"{path} has no column {' and no column '.join(missing)}: "
            f"a table needs {','.join(NEEDED)}"
        )
    reading.columns = tuple(names.values())
    return names


def locate(image: str, folder: Path, form: Form) -> str:
    """The absolute path of an image that a table in `folder` names."""
    if not image:
        return ""
    here = (folder / image).resolve()
    if form == "chexgenbench" and not here.exists():
        there = (folder / CHEXGENBENCH_IMAGES / image).resolve()
        here = there if there.exists() else here
    return str(here)


def _relative(image: str, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return image

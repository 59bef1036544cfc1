"""The files that pages show or offer: those of a run, pictures to be rated, and the ratings.

A run's files are reached by the run folder's name alone and only under the studio's runs folder;
a picture to be rated by a number drawn at random, its pixels alone, so that neither its address
nor its file says what it is. Knows files; knows nothing of Gradio.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from contextlib import closing
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response

from medgen.data.images import load_image, png_bytes, square
from medgen.errors import BadInput, MedgenError
from medgen.feedback.log import FeedbackLog
from medgen.graphs.run_folder import REPORT, REQUEST, RUN, TRACE_LINES, TRACE_PAGE

TYPES = {".png": "image/png", ".html": "text/html", ".json": "application/json"}
READABLE = frozenset({REPORT, RUN, TRACE_LINES, TRACE_PAGE})
IMAGE = re.compile(r"(candidates/)?[\w-]+\.png")
TRACE_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
EXPORTS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
OVERLAYS_KEPT = 64
PICTURES_KEPT = 20_000
OVERLAY_SIDE = 512


class Pictures:
    """Random names for pictures that are shown without saying where they come from.

    Args:
        kept: How many names are remembered, the oldest forgotten first.
    """

    def __init__(self, kept: int = PICTURES_KEPT) -> None:
        self._pictures: OrderedDict[str, tuple[Path, int | None]] = OrderedDict()
        self._kept = kept

    def name(self, path: str | Path, side: int | None = None) -> str:
        """A new name for a picture, shown in squares of `side` pixels or of its own."""
        name = secrets.token_urlsafe(12)
        self._pictures[name] = Path(path), side
        while len(self._pictures) > self._kept:
            self._pictures.popitem(last=False)
        return name

    def png(self, name: str) -> bytes:
        """The picture's pixels, squared and encoded anew without any text.

        Raises:
            KeyError: No picture has this name.
            BadInput: Its file is gone or damaged.
        """
        path, side = self._pictures[name]
        image = load_image(path)
        buffer = BytesIO()
        square(image, side or max(image.size)).save(buffer, format="PNG", compress_level=1)
        return buffer.getvalue()


def run_folder(runs: Path, name: str) -> Path | None:
    """The folder of a run directly under `runs`, or None; no name leads elsewhere."""
    folder = (runs.resolve() / name).resolve()
    known = folder.parent == runs.resolve() and (folder / REQUEST).is_file()
    return folder if known else None


def run_file(runs: Path, run: str, name: str) -> Path:
    """A file of a run that may be shown.

    Args:
        runs: The folder that holds one folder a run.
        run: The run folder's name.
        name: Of the file within it, such as "candidates/image0-round1-1.png".

    Raises:
        HTTPException: 404 when there is no such run or file, or it is none that is shown.
    """
    folder = run_folder(runs, run)
    if folder is None or not (name in READABLE or IMAGE.fullmatch(name)):
        raise HTTPException(404, "no such file")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise HTTPException(404, "no such file")
    return path


@lru_cache(maxsize=OVERLAYS_KEPT)
def overlay_png(path: Path, changed: int) -> bytes:
    """An image with what was measured drawn on it, as PNG.

    Args:
        path: The image.
        changed: When its file was written (ns), so that another file is drawn anew.
    """
    from medgen.measure.chest import bundled_segmenter, overlay

    image = load_image(path)
    pixels = np.asarray(image.resize((OVERLAY_SIDE, OVERLAY_SIDE)))
    (masks,) = bundled_segmenter().segment(pixels[None])
    return png_bytes(overlay(pixels, masks), {})


def router(runs: Path, pictures: Pictures) -> APIRouter:
    """The routes of these files."""
    routes = APIRouter()

    @routes.get("/run/{run}/overlay/{name}.png")
    def overlaid(run: str, name: str) -> Response:
        path = run_file(runs, run, f"candidates/{name}.png")
        content = overlay_png(path, path.stat().st_mtime_ns)
        return Response(content, media_type="image/png")

    @routes.get("/run/{run}/{name:path}")
    def of_run(run: str, name: str) -> FileResponse:
        path = run_file(runs, run, name)
        headers = {"Content-Security-Policy": TRACE_POLICY} if path.suffix == ".html" else {}
        kind = TYPES.get(path.suffix, "text/plain; charset=utf-8")
        return FileResponse(path, media_type=kind, headers=headers)

    @routes.get("/picture/{name}.png")
    def picture(name: str) -> Response:
        try:
            content = pictures.png(name)
        except (KeyError, BadInput) as error:
            raise HTTPException(404, "no such picture") from error
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})

    @routes.get("/ratings.{kind}")
    def ratings(kind: Literal["csv", "jsonl"]) -> Response:
        with TemporaryDirectory() as folder:
            try:
                with closing(FeedbackLog()) as log:
                    path = log.export(Path(folder) / f"ratings.{kind}")
            except MedgenError as error:
                raise HTTPException(503, str(error)) from error
            named = {"Content-Disposition": f'attachment; filename="ratings.{kind}"'}
            return Response(path.read_bytes(), media_type=EXPORTS[kind], headers=named)

    return routes

"""What was read from an image, drawn on it: outlines of masks, lines, boxes, and their names."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin
from scipy import ndimage

from medgen.measure.anatomy import Anatomy

SIZE = 512
NOTICE = "Measurements by medgen drawn on an image. Research and teaching only. Not for diagnosis."
COLOURS = (
    (255, 90, 90),
    (90, 255, 90),
    (100, 160, 255),
    (255, 220, 60),
    (255, 110, 255),
    (80, 240, 240),
)


def draw_anatomy(image: np.ndarray, anatomy: Anatomy, size: int = SIZE) -> np.ndarray:
    """Draw a reading on its image.

    Args:
        image: (H, H, 3) uint8.
        anatomy: What was read from it.
        size: Side of the picture.

    Returns:
        (size, size, 3) uint8: one colour a structure, named at the top left.
    """
    drawn = np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    names = [*anatomy.outlines, *(n for n, _ in anatomy.lines), *(n for n, _ in anatomy.boxes)]
    colours = dict(zip(dict.fromkeys(names), COLOURS * (1 + len(names)), strict=False))
    for name, mask in anatomy.outlines.items():
        large = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
        drawn[large & ~ndimage.binary_erosion(large)] = colours[name]
    picture = Image.fromarray(drawn)
    pen = ImageDraw.Draw(picture)
    for name, points in anatomy.lines:
        pen.line([(x * size, y * size) for x, y in points], fill=colours[name], width=2)
    for name, box in anatomy.boxes:
        pen.rectangle([edge * size for edge in box], outline=colours[name], width=2)
    for row, name in enumerate(dict.fromkeys(names)):
        pen.text((4, 4 + 12 * row), name, fill=colours[name], stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def overlay_png(image: np.ndarray, anatomy: Anatomy) -> bytes:
    """`draw_anatomy` as PNG, which says in its text what it is."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", NOTICE)
    buffer = BytesIO()
    Image.fromarray(draw_anatomy(image, anatomy)).save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()

"""Images in and out: decoding, squaring, and PNG files that say they are synthetic.

Knows files and pixels; knows nothing of models, prompts or modalities.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin

from medgen.errors import BadInput

MAX_PIXELS = 64_000_000
DICOM_SUFFIXES = (".dcm", ".dicom")
Fit = Literal["pad", "crop"]
SYNTHETIC_NOTICE = "Synthetic image made by medgen. Research and teaching only. Not for diagnosis."


def load_image(path: str | Path) -> Image.Image:
    """Read a picture as 8-bit RGB.

    Args:
        path: A PNG, JPEG or other file that Pillow reads, 16-bit greys scaled to 8 bits; or a
            DICOM file (.dcm, .dicom), see `medgen.data.dicom`.

    Returns:
        An RGB image at its own size.

    Raises:
        BadInput: The file is missing, no image, truncated, or larger than `MAX_PIXELS`.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"no image at {path}: check the path")
    if path.suffix.lower() in DICOM_SUFFIXES:
        from medgen.data.dicom import load_dicom

        return load_dicom(path)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadInput(
                    f"{path} has {image.width}x{image.height} pixels, over the limit of "
                    f"{MAX_PIXELS}: reduce it first"
                )
            image.load()
            if image.mode in ("I", "I;16", "I;16B", "F"):
                values = np.nan_to_num(np.asarray(image, dtype=np.float32))
                span = float(np.ptp(values)) or 1.0
                scaled = ((values - values.min()) * (255.0 / span)).astype(np.uint8)
                return Image.fromarray(scaled).convert("RGB")
            return image.convert("RGB")
    except BadInput:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"cannot read {path} as an image ({error}): replace or remove it") from error


def square(image: Image.Image, size: int, fit: Fit = "pad") -> Image.Image:
    """Make an image a `size` x `size` square, centred, with its aspect ratio.

    "pad" keeps the whole image and fills with black; "crop" cuts what stands over.
    """
    scale = size / (max(image.size) if fit == "pad" else min(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new(image.mode, (size, size))
    canvas.paste(resized, ((size - width) // 2, (size - height) // 2))
    return canvas


def load_square(path: str | Path, size: int, fit: Fit = "pad") -> np.ndarray:
    """Read and square one image: (size, size, 3) uint8."""
    return np.asarray(square(load_image(path), size, fit))


def pixel_sha256(path: str | Path) -> str:
    """What an image is known by: a hash of its size and RGB pixels, whatever the file says of it.

    Args:
        path: As for `load_image`.

    Returns:
        64 hex digits.

    Raises:
        BadInput: As `load_image`.
    """
    image = load_image(path)
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def write_atomic(path: str | Path, content: bytes | str) -> Path:
    """Write a file under a temporary name beside it, then rename: whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def png_bytes(pixels: np.ndarray, tags: Mapping[str, str]) -> bytes:
    """Encode (height, width[, 3]) uint8 pixels as PNG with the synthetic notice in its text."""
    from io import BytesIO

    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", SYNTHETIC_NOTICE)
    text.add_itxt("Synthetic", "YES")
    for key, value in tags.items():
        text.add_itxt(key, value)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def save_synthetic_png(
    path: str | Path, pixels: np.ndarray, tags: Mapping[str, str] | None = None
) -> Path:
    """Write a generated image atomically, marked as synthetic in its PNG text chunks.

    Args:
        path: Where to write.
        pixels: (height, width) grey or (height, width, 3) colour, uint8.
        tags: More PNG text entries, such as the prompt and the seed.
    """
    return write_atomic(path, png_bytes(pixels, tags or {}))

"""Images that nobody should send: too small, too large, broken, or of something else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bomb_png(path: Path, side: int, bits: int = 1) -> Path:
    """A PNG that says it has `side` x `side` pixels, in a few kB."""
    row = b"\0" * (1 + (side * bits + 7) // 8)
    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def natural_photograph() -> np.ndarray:
    """A photograph of something that is no scan: (427, 640, 3) uint8."""
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image("flower.jpg"))


def write_hostile(folder: Path) -> dict[str, Path]:
    """Write every kind of bad image; readable ones are answered, the others refused in a line."""
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    made: dict[str, Path] = {}

    def keep(name: str, image: Image.Image, **options: object) -> None:
        made[name] = folder / name
        image.save(made[name], **options)  # type: ignore[arg-type]

    keep("one_pixel.png", Image.new("L", (1, 1), 128))
    keep("thin.png", Image.new("RGB", (4000, 1), (90, 90, 90)))
    keep("black.png", Image.new("RGB", (256, 256)))
    keep("noise.png", Image.fromarray(noise))
    deep = (draws.random((180, 220)) * 65535).astype(np.uint16)
    keep("sixteen_bit.png", Image.fromarray(deep))
    keep("sixteen_bit.tif", Image.fromarray(deep))
    real = np.full((90, 90), np.nan, dtype=np.float32)
    real[10:60, 10:60] = draws.random((50, 50)) * 1e30
    keep("not_a_number.tif", Image.fromarray(real))
    keep("cmyk.jpg", Image.fromarray(noise).convert("CMYK"))
    keep("palette.gif", Image.fromarray(noise).convert("P"))
    frames = [Image.fromarray(np.roll(noise, 20 * k, axis=1)).convert("P") for k in range(5)]
    keep("animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=50)
    keep("animated.webp", frames[0].convert("RGB"), save_all=True, append_images=frames[1:])
    keep("transparent.png", Image.fromarray(np.dstack([noise, noise[..., 0]])))
    keep("photograph.jpg", Image.fromarray(natural_photograph()))
    whole = folder / "whole.jpg"
    Image.fromarray(noise).save(whole)
    for name, content in {
        "truncated.jpg": whole.read_bytes()[:4000],
        "truncated.png": made["noise.png"].read_bytes()[:4000],
        "empty.png": b"",
        "text.png": b"This is no image.\n",
        "signature.png": b"\x89PNG\r\n\x1a\n",
        "bad_header.tif": b"II*\0\xff\xff\xff\x7f",
        "bad_gif.gif": b"GIF89a" + b"\xff" * 40,
        "bad_webp.webp": b"RIFF\x20\0\0\0WEBPVP8 " + b"\xff" * 16,
        "bad_bmp.bmp": b"BM" + b"\xff" * 60,
        "bad_dicom.dcm": b"\0" * 128 + b"DICM" + b"\xff" * 60,
    }.items():
        made[name] = folder / name
        made[name].write_bytes(content)
    whole.unlink()
    made["bomb.png"] = bomb_png(folder / "bomb.png", 20_000)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 40_000_000, zip=True)
    keep("text_bomb.png", Image.fromarray(noise), pnginfo=text)
    return made

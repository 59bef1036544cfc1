"""DICOM files as pictures: the window that the file states, MONOCHROME1 turned, 8 bits.

Needs pydicom (`pip install "medgen[dicom]"`). Reads single frames; volumes are for other tools.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medgen.errors import BadInput


def load_dicom(path: Path) -> Image.Image:
    """Read one frame as 8-bit RGB.

    Modality and window transformations are applied (DICOM PS3.3 C.11.1, C.11.2); where no window
    is stated, the darkest value becomes 0 and the brightest 255.

    Raises:
        BadInput: pydicom is missing, the file is no DICOM image or cannot be decoded, or it has
            several frames.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
    except ImportError as error:
        raise BadInput(f'{path} is DICOM: pip install "medgen[dicom]" to read it') from error
    try:
        file = pydicom.dcmread(path)
        if int(file.get("NumberOfFrames") or 1) > 1:
            raise BadInput(f"{path} has {file.NumberOfFrames} frames: save the one to train on")
        pixels = file.pixel_array
        kind = file.PhotometricInterpretation
        if kind == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, file)
        elif pixels.ndim == 2:
            pixels = apply_voi_lut(apply_modality_lut(pixels, file), file)
    except BadInput:
        raise
    except (
        InvalidDicomError, AttributeError, KeyError, ValueError, RuntimeError, OSError,
        NotImplementedError,
    ) as error:  # fmt: skip
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"cannot read {path} as a DICOM image ({reason[:150]}): replace or remove it"
        ) from error
    if pixels.dtype != np.uint8:
        values = pixels.astype(np.float32)
        span = float(np.ptp(values)) or 1.0
        pixels = ((values - values.min()) * (255.0 / span)).round().astype(np.uint8)
    if kind == "MONOCHROME1":
        pixels = 255 - pixels
    return Image.fromarray(pixels).convert("RGB")

"""DICOM files become pictures: window, inversion, colour; what cannot be read says why."""

import sys

import numpy as np
import pytest

from medgen.data.images import load_image
from medgen.errors import BadInput

pydicom = pytest.importorskip("pydicom")


def _save(path, pixels, kind="MONOCHROME2", **tags):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = Dataset()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    frames = tags.get("NumberOfFrames")
    file.Rows, file.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
    file.SamplesPerPixel = 3 if kind == "RGB" else 1
    if kind == "RGB":
        file.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = 0
    file.PhotometricInterpretation = kind
    file.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


RAMP = np.array([[0, 1000, 2000, 4000]], np.uint16)


def _grey(path):
    return np.asarray(load_image(path))[0, :, 0].tolist()


def test_greys_are_stretched_windowed_and_inverted(tmp_path):
    assert _grey(_save(tmp_path / "a.dcm", RAMP)) == [0, 64, 128, 255]
    windowed = _save(tmp_path / "b.dcm", RAMP, WindowCenter=1500, WindowWidth=1000)
    low, *middle, high = _grey(windowed)
    assert (low, high) == (0, 255) and middle == [0, 255]
    assert _grey(_save(tmp_path / "c.DICOM", RAMP, kind="MONOCHROME1")) == [255, 191, 127, 0]
    rescaled = _save(tmp_path / "d.dcm", RAMP, RescaleSlope=-1, RescaleIntercept=0)
    assert _grey(rescaled) == [255, 191, 128, 0]


def test_colour_stays_colour(tmp_path):
    pixels = np.array([[[250, 10, 20], [0, 200, 0]]], np.uint8)
    path = _save(tmp_path / "a.dcm", pixels, kind="RGB")
    assert np.array_equal(np.asarray(load_image(path)), pixels)


def test_what_is_no_picture_is_one_line(tmp_path, monkeypatch):
    volume = _save(tmp_path / "v.dcm", np.zeros((3, 4, 4), np.uint16), NumberOfFrames=3)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(_save(tmp_path / "whole.dcm", RAMP).read_bytes()[:-4])
    (tmp_path / "text.dcm").write_text("no image")
    for path, reason in ((volume, "3 frames"), (cut, "cut"), (tmp_path / "text.dcm", "text")):
        with pytest.raises(BadInput, match=reason) as caught:
            load_image(path)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(BadInput, match=r"medgen\[dicom\]"):
        load_image(volume)

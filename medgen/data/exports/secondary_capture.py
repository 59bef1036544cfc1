"""One synthetic picture as a DICOM Secondary Capture image.

Eight-bit pictures have no Hounsfield units and were made by no scanner, so they are neither CT nor
MR objects: Modality is OT, Conversion Type SYN (synthetic image), Synthetic Data YES.
Source: DICOM PS3.3 A.8.1 (Secondary Capture Image IOD) and C.12.1 (SOP Common). Needs pydicom.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from medgen.data.exports.terms import known, of_modality
from medgen.data.images import SYNTHETIC_NOTICE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Of UUIDs as UIDs, PS3.5 B.2: 2.25 and the UUID as an integer.
UUID_ROOT = "2.25."
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "medgen DICOM export")
LONG_STRING, SHORT_TEXT, LONG_TEXT = 64, 1024, 10_240


@dataclass(frozen=True)
class Described:
    """What a DICOM image says of one picture.

    `key` makes its UIDs: the same key, the same UIDs. `age` is in years, `sex` "female", "male" or
    "". `made` is when the dataset was made. `maker` is the software's version and `derivation`
    how the picture came to be, in words.
    """

    id: str
    key: str
    modality: str
    prompt: str
    label: str
    derivation: str
    maker: str
    made: datetime
    sex: str = ""
    age: float | None = None


def uid(*parts: str) -> str:
    """A UID that follows from its parts alone, UUID-derived (PS3.5 B.2)."""
    return UUID_ROOT + str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)).int)


def secondary_capture(pixels: np.ndarray, described: Described) -> Dataset:
    """Make the image; MONOCHROME2 where the three channels are equal, RGB otherwise.

    Args:
        pixels: (height, width) or (height, width, 3) uint8.
        described: What to say of it.

    Returns:
        A dataset with complete File Meta Information, Explicit VR Little Endian.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = SecondaryCaptureImageStorage
    image.SOPInstanceUID = uid("image", described.key)
    _add_patient_and_study(image, described)
    _add_series_and_equipment(image, described)
    _add_image(image, described)
    _add_pixels(image, pixels)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta = meta
    return image


def encoded(dataset: Dataset) -> bytes:
    """A dataset as the bytes of a DICOM file, preamble and File Meta included."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def age_string(years: float) -> str:
    """An age as DICOM writes it (PS3.5 6.2, AS): years, or months below two years."""
    if years >= 2:
        return f"{min(int(years), 999):03d}Y"
    return f"{int(years * 12):03d}M"


def _add_patient_and_study(image: Dataset, described: Described) -> None:
    """Each picture is a patient of its own: two drawings never show the same person."""
    image.PatientName = "Synthetic^medgen"
    image.PatientID = _short(described.id)
    image.PatientBirthDate = ""
    image.PatientSex = {"female": "F", "male": "M"}.get(described.sex, "")
    if described.age is not None:
        image.PatientAge = age_string(described.age)
    image.PatientComments = SYNTHETIC_NOTICE
    image.StudyInstanceUID = uid("study", described.key)
    image.StudyDate, image.StudyTime = moment(described.made)
    image.StudyID = "1"
    image.AccessionNumber = ""
    image.ReferringPhysicianName = ""
    image.StudyDescription = _short(f"Synthetic {described.modality}")


def _add_series_and_equipment(image: Dataset, described: Described) -> None:
    image.Modality = "OT"
    image.SeriesInstanceUID = uid("series", described.key)
    image.SeriesNumber = 1
    image.SeriesDescription = _short(f"Synthetic {described.modality}: {described.label}")
    of = of_modality(described.modality)
    if of.body_part:
        image.BodyPartExamined = of.body_part
    if of.paired:
        image.Laterality = ""
    image.Manufacturer = "medgen"
    image.ManufacturerModelName = "medgen"
    image.SoftwareVersions = described.maker
    image.ConversionType = "SYN"
    image.SecondaryCaptureDeviceManufacturer = "medgen"
    image.SecondaryCaptureDeviceManufacturerModelName = "medgen"
    image.SecondaryCaptureDeviceSoftwareVersions = described.maker


def _add_image(image: Dataset, described: Described) -> None:
    image.SyntheticData = "YES"
    image.InstanceNumber = 1
    image.ImageType = ["DERIVED", "SECONDARY"]
    image.InstanceCreationDate, image.InstanceCreationTime = moment(described.made)
    image.ContentDate, image.ContentTime = moment(described.made)
    image.DateOfSecondaryCapture, image.TimeOfSecondaryCapture = moment(described.made)
    image.DerivationDescription = described.derivation[:SHORT_TEXT]
    image.ImageComments = f"{SYNTHETIC_NOTICE} Prompt: {described.prompt}"[:LONG_TEXT]
    of = of_modality(described.modality)
    image.PatientOrientation = of.orientation
    if of.region:
        image.AnatomicRegionSequence = [known(of.region)]
    image.BurnedInAnnotation = "NO"
    image.LossyImageCompression = "00"


def _add_pixels(image: Dataset, pixels: np.ndarray) -> None:
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    color = pixels.ndim == 3
    image.SamplesPerPixel = 3 if color else 1
    image.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        image.PlanarConfiguration = 0
    image.Rows, image.Columns = pixels.shape[:2]
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    data = np.ascontiguousarray(pixels).tobytes()
    image.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))


def moment(made: datetime) -> tuple[str, str]:
    """A date and a time as DICOM writes them (DA, TM)."""
    return made.strftime("%Y%m%d"), made.strftime("%H%M%S")


def _short(text: str) -> str:
    return text.replace("\\", "/")[:LONG_STRING]

"""DICOM exports open in pydicom and highdicom, say that they are synthetic, and pass dciodvfy."""

import shutil
import subprocess
from datetime import UTC, datetime

import numpy as np
import pytest
from dataset_samples import RATIO, pixels, write_dataset

from medgen.data.check import check_table
from medgen.data.dataset_folder import open_dataset
from medgen.data.dataset_rows import read_rows
from medgen.data.exports import terms
from medgen.data.exports.export import export
from medgen.data.images import load_image

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

SYNTHETIC = "(0008,001c)"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dicom") / "small")


@pytest.fixture(scope="module")
def out(source):
    export(open_dataset(source), "dicom", source.parent / "out")
    return source.parent / "out"


def rows(source):
    return {row.id: row for row in read_rows(source) if row.kept}


def test_grey_pictures_are_monochrome2_and_colour_ones_rgb_with_the_pixels_as_they_were(
    source, out
):
    for name, row in rows(source).items():
        image = pydicom.dcmread(out / "images" / f"{name}.dcm")
        color = row.modality == "Fundus"
        assert image.PhotometricInterpretation == ("RGB" if color else "MONOCHROME2")
        before = np.asarray(load_image(source / row.path))
        assert np.array_equal(image.pixel_array, before if color else before[..., 0])
        assert np.array_equal(np.asarray(load_image(out / "images" / f"{name}.dcm")), before)


def test_images_are_secondary_captures_marked_as_synthetic(out):
    image = pydicom.dcmread(out / "images" / "task-001.dcm")
    assert image.file_meta.MediaStorageSOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert image[0x0008, 0x001C].value == "YES"
    assert (image.Modality, image.ConversionType) == ("OT", "SYN")
    assert image.DerivationDescription.startswith("Synthetic: drawn from text by medgen")
    assert "Not for diagnosis" in image.DerivationDescription
    assert (image.PatientSex, image.PatientAge) == ("F", "061Y")
    assert list(image.PatientOrientation) == ["L", "F"]
    assert image.ImageComments.endswith("Prompt: cardiomegaly; pleural effusion, Chest X-ray")


def test_uids_are_new_for_each_image_and_the_same_for_the_same_one(source, out, tmp_path):
    def uids(folder):
        images = [pydicom.dcmread(path) for path in sorted((folder / "images").iterdir())]
        return [(one.SOPInstanceUID, one.SeriesInstanceUID, one.StudyInstanceUID) for one in images]

    first = uids(out)
    flat = [uid for triple in first for uid in triple]
    assert len(set(flat)) == len(flat) == 18
    assert all(uid.is_valid and uid.startswith("2.25.") and len(uid) <= 64 for uid in flat)
    export(open_dataset(source), "dicom", tmp_path / "again")
    assert uids(tmp_path / "again") == first
    write_dataset(tmp_path / "other", prefix="other")
    export(open_dataset(tmp_path / "other"), "dicom", tmp_path / "out")
    assert not set(flat) & {uid for triple in uids(tmp_path / "out") for uid in triple}


def test_nothing_in_a_file_is_of_the_clock_or_the_machine(out):
    today = datetime.now(UTC).strftime("%Y%m%d").encode()
    for path in out.rglob("*.dcm"):
        data = path.read_bytes()
        assert today not in data and b"20260102" in data
        assert str(out.parent).encode() not in data


def test_the_report_has_findings_codes_and_measurements(source, out):
    row = rows(source)["task-001"]
    image = pydicom.dcmread(out / "images" / "task-001.dcm")
    report = highdicom.sr.EnhancedSR.from_dataset(pydicom.dcmread(out / "reports" / "task-001.dcm"))
    assert report.StudyInstanceUID == image.StudyInstanceUID
    assert (report.VerificationFlag, report.SyntheticData) == ("UNVERIFIED", "YES")
    groups = report.content.get_image_measurement_groups(
        referenced_sop_instance_uid=image.SOPInstanceUID
    )
    picture, heart, effusion = groups
    assert picture.finding_type is None
    assert (heart.finding_type.value, heart.finding_type.scheme_designator) == (
        row.findings[0].code,
        "99HP",
    )
    assert effusion.finding_type.value == "RID34539"
    assert effusion.finding_type.scheme_designator == "RADLEX"
    told = {one.name.meaning: one.value.meaning for one in effusion.get_qualitative_evaluations()}
    assert told == {
        "Asked for": "Present",
        "Laterality": "Left",
        "Verdict on the finding": "abstain",
    }
    ratio, certainty = heart.get_measurements()
    assert (ratio.name.value, ratio.value, ratio.unit.value) == (
        "cardiothoracic_ratio",
        0.58,
        "{ratio}",
    )
    assert certainty.value == pytest.approx(93)
    words = [one.TextValue for one in _walked(report) if "TextValue" in one]
    assert f"on real images: {RATIO}" in words
    assert "expected 0.5 to -" in words


def _walked(item):
    for one in item.get("ContentSequence", []):
        yield one
        yield from _walked(one)


def test_local_schemes_are_declared_and_named_as_local(out):
    report = pydicom.dcmread(out / "reports" / "task-001.dcm")
    declared = {item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence}
    assert declared == {"99MEDGEN", "99HP"}


def test_every_keyword_of_the_table_is_in_pydicoms_dictionaries():
    table = terms.terms()
    keywords = [one.region for one in table.modalities.values()]
    keywords += [*table.values.values(), *table.measurements.values(), *table.units.values()]
    for keyword in keywords:
        assert terms.known(keyword).value


def test_what_has_no_code_gets_a_local_one_and_no_invented_id():
    assert terms.finding("odd shadow", None).scheme_designator == "99MEDGEN"
    assert terms.finding("odd shadow", "MADEUP:1").scheme_designator == "99MEDGEN"
    assert terms.finding("heart failure", "SNOMEDCT:84114007").scheme_designator == "SCT"
    assert terms.unit("0 air - 1 soft tissue").value == "{0 air - 1 soft tissue}"
    assert terms.measurement("probability of glioma").meaning == "Probability"


def test_the_index_is_a_table_that_medgen_reads(out):
    report = check_table(out / "index.csv")
    assert (report.rows, report.counts) == (6, {})


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is missing")
def test_dciodvfy_finds_no_error_but_the_attribute_that_it_is_too_old_for(out, tmp_path):
    files = sorted(out.rglob("*.dcm"))
    assert len(files) == 12
    for path in files:
        assert [one for one in _errors(path) if SYNTHETIC not in one] == [], path
    for path in (files[0], files[-1]):
        older = pydicom.dcmread(path)
        del older[0x0008, 0x001C]
        older.save_as(tmp_path / "older.dcm")
        assert _errors(tmp_path / "older.dcm") == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is missing")
def test_dciodvfy_would_find_an_error(out, tmp_path):
    broken = pydicom.dcmread(out / "images" / "task-001.dcm")
    del broken.ConversionType
    broken.save_as(tmp_path / "broken.dcm")
    assert any("ConversionType" in one for one in _errors(tmp_path / "broken.dcm"))


def _errors(path):
    done = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


def test_odd_pictures_and_unknown_modalities_make_valid_images(tmp_path):
    from medgen.data.exports.secondary_capture import Described, encoded, secondary_capture

    described = Described(
        id="x" * 90,
        key="k",
        modality="Ultrasound",
        prompt="größer \\ kleiner",
        label="a" * 90,
        derivation="d" * 2000,
        maker="0",
        made=datetime(2026, 1, 1, tzinfo=UTC),
        age=0.5,
    )
    image = secondary_capture(pixels(1)[:31, :31], described)
    (tmp_path / "odd.dcm").write_bytes(encoded(image))
    back = pydicom.dcmread(tmp_path / "odd.dcm")
    assert back.pixel_array.shape == (31, 31)
    assert (back.PatientAge, back.PatientSex) == ("006M", "")
    assert "größer" in back.ImageComments
    if shutil.which("dciodvfy"):
        assert [one for one in _errors(tmp_path / "odd.dcm") if SYNTHETIC not in one] == []

"""What was asked of a picture and measured on it, as an Enhanced SR after TID 1500.

One measurement group (TID 1501) for the picture and one for each finding: what was asked (present,
absent; side; severity), the verdict, the certainty, and every measurement with the check that made
it, the range that was expected and the check's figure on real images. The observer is a device;
no person verified it, and the document says so.
Source: DICOM PS3.16 TID 1500, 1501, 300, 4019. Needs highdicom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medgen.data.dataset_rows import Row
from medgen.data.exports import terms
from medgen.data.exports.secondary_capture import Described, moment, uid
from medgen.records import Finding, Measurement

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

VERDICTS = {True: "accepted", False: "rejected", None: "not measurable"}


def structured_report(image: Dataset, row: Row, described: Described) -> Dataset:
    """The report of one picture.

    Args:
        image: Its Secondary Capture, which the report refers to and whose study it joins.
        row: What was asked and measured.
        described: As for the image.

    Returns:
        An Enhanced SR document, with File Meta Information.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    reference = sr.SourceImageForMeasurementGroup.from_source_image(image)
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid("verifier", row.verifier),
            name="medgen verifier",
            manufacturer_name="medgen",
            model_name=row.verifier,
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[
            _picture_group(row, described, reference),
            *(
                _finding_group(number, finding, row, described, reference)
                for number, finding in enumerate(row.findings, 1)
            ),
        ],
    )
    report = sr.EnhancedSR(
        evidence=[image],
        content=content,
        series_instance_uid=uid("report series", described.key),
        series_number=2,
        sop_instance_uid=uid("report", described.key),
        instance_number=1,
        manufacturer="medgen",
        is_complete=True,
        is_final=True,
        series_description="What was asked and measured",
        software_versions=described.maker,
    )
    return _finished(report, described)


def _finished(report: Dataset, described: Described) -> Dataset:
    """Mark it as synthetic, and put the dataset's date where highdicom puts the clock's."""
    report.SyntheticData = "YES"
    report.ContentDate, report.ContentTime = moment(described.made)
    report.InstanceCreationDate, report.InstanceCreationTime = moment(described.made)
    report.SeriesDate, report.SeriesTime = moment(described.made)
    for item in report.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = described.made.strftime("%Y%m%d%H%M%S")
    terms.declare_local_schemes(report)
    return report


def _picture_group(row: Row, described: Described, reference: Any) -> Any:
    """The picture as a whole: the panel's word, its quality, its distance to training images."""
    from highdicom import sr

    numbers = [Measurement(name="verifier score", value=row.score, check="panel")]
    if row.nearest_distance is not None:
        numbers.append(
            Measurement(
                name="distance to the nearest training image",
                value=row.nearest_distance,
                check="memorisation",
            )
        )
    numbers += row.quality.measurements if row.quality else []
    accepted = terms.local(VERDICTS[row.accepted])
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking("picture", described),
        measurements=[_measured(one, row) for one in numbers],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(terms.local("verdict", "Verdict on the picture"), accepted)
        ],
        source_images=[reference],
    )


def _finding_group(
    number: int, finding: Finding, row: Row, described: Described, reference: Any
) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    evaluations = [(terms.local("asked", "Asked for"), terms.value(finding.status))]
    if finding.side:
        evaluations.append((terms.known("SCT.Laterality"), terms.value(finding.side)))
    if finding.severity:
        evaluations.append((terms.known("SCT.Severity"), terms.value(finding.severity)))
    verdict = terms.local(finding.verdict or "abstain")
    evaluations.append((terms.local("verdict", "Verdict on the finding"), verdict))
    measured = [_measured(one, row) for one in finding.measurements]
    if finding.confidence is not None:
        certainty = finding.confidence * 100
        measured.append(sr.Measurement(codes.DCM.CertaintyOfFinding, certainty, codes.UCUM.Percent))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(f"finding {number}", described),
        finding_type=terms.finding(finding.finding, finding.code),
        measurements=measured,
        qualitative_evaluations=[sr.QualitativeEvaluation(*pair) for pair in evaluations],
        source_images=[reference],
    )


def _measured(one: Measurement, row: Row) -> Any:
    """A number with its unit, and in the algorithm's parameters what was expected and how sure."""
    from highdicom import sr

    parameters = [] if one.expected is None else [f"expected {_range(one.expected)}"]
    parameters += [f"on real images: {one.accuracy}"] if one.accuracy else []
    return sr.Measurement(
        name=terms.measurement(one.name),
        value=one.value,
        unit=terms.unit(one.unit),
        algorithm_id=sr.AlgorithmIdentification(
            name=one.check, version=row.verifier, parameters=parameters or None
        ),
    )


def _range(expected: tuple[float | None, float | None]) -> str:
    low, high = expected
    return f"{'-' if low is None else f'{low:g}'} to {'-' if high is None else f'{high:g}'}"


def _tracking(name: str, described: Described) -> Any:
    from highdicom import sr

    return sr.TrackingIdentifier(uid=uid(name, described.key), identifier=name)

"""A run's trace as OpenTelemetry spans: sent to a collector over OTLP/HTTP, or as lines of JSON.

One span for the run and one for each step, with the times that they had. Attributes are what a
person filters by; the whole of inputs and outputs stays in the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from medgen.errors import BadInput, MedgenError
from medgen.graphs.runs import Trace
from medgen.records import TraceEvent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

NANOSECONDS = 1_000_000_000
Attributes = dict[str, str | int | float | bool]


def tracer_provider() -> TracerProvider:
    """A provider whose spans say that medgen made them; OTEL_RESOURCE_ATTRIBUTES adds to it.

    Raises:
        BadInput: The OpenTelemetry packages are not installed.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise BadInput('OpenTelemetry is not installed: pip install "medgen[tracing]"') from error
    return TracerProvider(resource=Resource.create({"service.name": "medgen"}))


def otlp_exporter(endpoint: str | None = None) -> Any:
    """What sends spans to a collector; OTEL_EXPORTER_OTLP_* say where when `endpoint` is None.

    Raises:
        BadInput: The package is not installed, or the endpoint is no web address.
    """
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        raise BadInput(f"{endpoint!r} is no web address: give http://HOST:4318/v1/traces")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise BadInput('OpenTelemetry is not installed: pip install "medgen[tracing]"') from error
    return OTLPSpanExporter(endpoint=endpoint)


def spans(trace: Trace) -> list[ReadableSpan]:
    """The spans of a run: its own first, then one a step."""
    from opentelemetry import trace as otel

    tracer = tracer_provider().get_tracer("medgen")
    times = [_nanoseconds(event) for event in trace.events]
    if not times:
        raise BadInput(f"run {trace.summary.run_id} has no steps yet: nothing to export")
    begin, end = min(first for first, _ in times), max(last for _, last in times)
    root: Any = tracer.start_span("medgen run", start_time=begin, attributes=_of_run(trace))
    inside = otel.set_span_in_context(root)
    steps: list[Any] = []
    for event, (first, last) in zip(trace.events, times, strict=True):
        step = tracer.start_span(event.node, inside, start_time=first, attributes=_of_step(event))
        step.end(last)
        steps.append(step)
    root.end(end)
    return [root, *steps]


def span_lines(trace: Trace) -> Iterator[str]:
    """The spans of a run in OpenTelemetry's own JSON, one a line."""
    for span in spans(trace):
        yield span.to_json(indent=None)


def send_otlp(trace: Trace, endpoint: str | None = None) -> int:
    """Send the spans of a run to a collector; returns how many.

    Args:
        trace: The run.
        endpoint: The collector's address with its path, such as http://localhost:4318/v1/traces;
            OTEL_EXPORTER_OTLP_ENDPOINT and its kin when None.

    Raises:
        BadInput: OpenTelemetry is not installed, or the endpoint is no web address.
        MedgenError: The collector did not take them.
    """
    from opentelemetry.sdk.trace.export import SpanExportResult

    sent, exporter = spans(trace), otlp_exporter(endpoint)
    try:
        result = exporter.export(sent)
    finally:
        exporter.shutdown()
    if result is not SpanExportResult.SUCCESS:
        where = endpoint or "the address of OTEL_EXPORTER_OTLP_ENDPOINT"
        raise MedgenError(f"{where} did not take the spans: see whether a collector listens there")
    return len(sent)


def _nanoseconds(event: TraceEvent) -> tuple[int, int]:
    begin = round(datetime.fromisoformat(event.started).timestamp() * 1000) * 1_000_000
    return begin, begin + round(event.seconds * NANOSECONDS)


def _of_run(trace: Trace) -> Attributes:
    run, lineage = trace.summary, trace.summary.lineage
    told: dict[str, Any] = {
        "medgen.run": run.run_id,
        "medgen.prompt": run.prompt,
        "medgen.modality": run.modality,
        "medgen.seed": run.seed,
        "medgen.status": run.status,
        "medgen.accepted": run.accepted,
        "medgen.rounds": run.rounds,
        "medgen.candidates": run.candidates,
        "medgen.generator": trace.generator,
        "medgen.parent": lineage.parent if lineage else None,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def _of_step(event: TraceEvent) -> Attributes:
    told: dict[str, Any] = {
        "medgen.node": event.node,
        "medgen.round": event.round,
        "medgen.decided_by": event.decided_by,
        "medgen.inputs": ", ".join(event.inputs),
        "gen_ai.usage.total_tokens": event.tokens,
        "medgen.cost_usd": event.cost,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}

"""Figures of a running server for Prometheus: requests, runs, the queue, memory."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from medgen.graphs.results import RunResult
from medgen.serve.jobs import Job

disable_created_metrics()  # a second line for each counter that nobody reads
RUN_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Counters of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "medgen_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._runs = Counter(
            "medgen_runs", "Runs that ended, by how.", ["outcome"], registry=self._registry
        )
        self._seconds = Histogram(
            "medgen_run_seconds",
            "Working seconds of a finished run.",
            buckets=RUN_SECONDS,
            registry=self._registry,
        )
        self._drawn = Counter("medgen_candidates", "Images drawn.", registry=self._registry)
        self.ratings = Counter("medgen_ratings", "Ratings written.", registry=self._registry)
        self.streams = Gauge(
            "medgen_event_streams", "Event streams that are open.", registry=self._registry
        )

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Say at each reading how many runs wait."""
        gauge = Gauge("medgen_queue_length", "Runs that wait.", registry=self._registry)
        gauge.set_function(length)

    def run_ended(self, job: Job, result: RunResult | None) -> None:
        """Count a run: finished runs as accepted, rejected or not measurable."""
        outcome: str = job.status
        if result is not None:
            outcome = {True: "accepted", False: "rejected", None: "not measurable"}[result.accepted]
            self._seconds.observe(result.seconds)
            self._drawn.inc(result.candidates)
        self._runs.labels(outcome).inc()

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)

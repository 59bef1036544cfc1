"""Sends what LangGraph does to a tracing service while it runs, by LangGraph's own callbacks.

`MEDGEN_TRACING` names the service; where it is and the keys to it are in that service's own
environment variables. Knows no node: each service listens to the callbacks by its own library.
"""

from __future__ import annotations

import os
from functools import cache

from medgen.errors import BadInput
from medgen.graphs.trace_export import otlp_exporter, tracer_provider
from medgen.settings import settings


def start_tracing() -> None:
    """Begin to send, if `MEDGEN_TRACING` says so; once a process.

    Raises:
        BadInput: The service's package is not installed.
    """
    service = settings().tracing
    if service is not None:
        _start(service)


@cache
def _start(service: str) -> None:
    {"otlp": _otlp, "mlflow": _mlflow, "langsmith": _langsmith}[service]()


def _otlp() -> None:
    try:
        from openinference.instrumentation.langchain import LangChainInstrumentor
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BadInput('MEDGEN_TRACING=otlp needs: pip install "medgen[tracing]"') from error
    provider = tracer_provider()
    provider.add_span_processor(BatchSpanProcessor(otlp_exporter()))
    LangChainInstrumentor().instrument(tracer_provider=provider)


def _mlflow() -> None:
    try:
        import mlflow.langchain
    except ImportError as error:
        raise BadInput('MEDGEN_TRACING=mlflow needs: pip install "medgen[mlflow]"') from error
    mlflow.langchain.autolog()


def _langsmith() -> None:
    os.environ["LANGSMITH_TRACING"] = "true"

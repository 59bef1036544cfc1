"""Schemathesis with the API's own description: no server error, no answer that it does not promise.

Requests go over loopback to a server in this process, with a budget that keeps runs tiny.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from phantom_server import PROMPT, listening
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from medgen.serve.limits import Limits

TINY = Limits(queue=1, rate=100_000, images=1, rounds=1, candidates=1, steps=2)
FEW = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(tmp_path_factory.mktemp("server"), TINY) as address:
        yield address


@pytest.fixture(scope="module")
def description(address: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{address}/openapi.json", timeout=120)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_makes_the_server_fail(
    description: schemathesis.BaseSchema, mode: GenerationMode
) -> None:
    tried = 0
    for found in description.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @FEW
        def holds(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
            holds()
    assert tried > 50


def test_every_route_says_how_it_answers_and_every_body_has_an_example(address: str) -> None:
    told = httpx2.get(f"{address}/openapi.json").json()
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            assert route["description"], (method, path)
            assert {"401", "422", "429"} <= set(route["responses"]), (method, path)
    for body in ("RunRequest", "RatingRequest", "Problem"):
        assert told["components"]["schemas"][body]["examples"]
    assert PROMPT in json.dumps(told["components"]["schemas"]["RunRequest"])

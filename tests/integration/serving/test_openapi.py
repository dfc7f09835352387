"""Whatever fits the OpenAPI document, or does not, is answered as the document says, and never by a failure."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.integration.serving.predictor_process import RunningPredictor

pytestmark = pytest.mark.slow
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
EXAMPLES = 12
"""Of each operation: a few seconds."""


@pytest.fixture
def document(predictor: RunningPredictor) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{predictor.url}/openapi.json", proxies={"no_proxy": "127.0.0.1"})


@schemathesis.pytest.from_fixture("document").parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_answers_fit_the_document(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS, timeout=60)

"""Whatever fits the OpenAPI document, or does not, is answered as the document says, and never by a failure."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from ivcp.serving.app import create_app
from tests.integration.serving.predictor_process import NAME, RunningPredictor

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
"""Of each operation and kind: a few seconds."""
DOCUMENT = create_app("not loaded").openapi()
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_fit_the_document(predictor: RunningPredictor, method: str, path: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=predictor.url)
    strategy = schema[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def answers_fit(case: schemathesis.Case) -> None:
        if case.path_parameters and "infer" in path:
            case.path_parameters["name"] = NAME  # else all of them ask for models that are not there
        case.call_and_validate(checks=CHECKS, timeout=60)

    if mode in modes_of(method, path):
        answers_fit()


def modes_of(method: str, path: str) -> set[GenerationMode]:
    """There is nothing to get wrong where nothing is asked for."""
    operation = DOCUMENT["paths"][path][method]
    asks = operation.get("parameters") or "requestBody" in operation
    return set(GenerationMode) if asks else {GenerationMode.POSITIVE}


def test_the_document_is_the_servers(predictor: RunningPredictor) -> None:
    with predictor.client() as client:
        assert client.get("/openapi.json").json() == DOCUMENT
    assert len(OPERATIONS) > 15

from collections.abc import Iterator

import pytest

from ivcp.client import waiting
from tests.predictor_api.server import PredictorApi, predictor_api


@pytest.fixture
def api() -> Iterator[PredictorApi]:
    with predictor_api() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_key_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IVCP_KEY", raising=False)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_FIRST_SECONDS", 0.01)

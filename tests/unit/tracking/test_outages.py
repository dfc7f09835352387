"""Calls of MLflow's client that outlive an outage, and those that need not."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

from ivcp.tracking import outages
from ivcp.tracking.outages import patiently


class Server:
    """Answers 7 after some failures."""

    def __init__(self, error: Exception, failures: int) -> None:
        self.error, self.failures, self.asked = error, failures, 0

    def __call__(self) -> int:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error
        return 7


@pytest.fixture
def in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(outages, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(outages, "_PATIENCE_SECONDS", 60.0)


AWAY = MlflowException("the database restarts", error_code=TEMPORARILY_UNAVAILABLE)


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize("error", [AWAY, ConnectionRefusedError("refused")])
def test_a_pod_waits_for_a_server_that_restarts(error: Exception) -> None:
    assert patiently(server := Server(error, 3)) == 7
    assert server.asked == 4


@pytest.mark.usefixtures("in_a_pod")
@pytest.mark.parametrize(
    "error",
    [MlflowException("no", error_code=PERMISSION_DENIED), PermissionError("no"), ValueError("another mistake")],
)
def test_what_will_not_pass_is_an_error_at_once(error: Exception) -> None:
    server = Server(error, 9)
    with pytest.raises(type(error)):
        patiently(server)
    assert server.asked == 1


@pytest.mark.usefixtures("in_a_pod")
def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_PATIENCE_SECONDS", 0.05)
    with pytest.raises(MlflowException):
        patiently(Server(AWAY, 10**6))


def test_a_person_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    server = Server(AWAY, 1)
    with pytest.raises(MlflowException):
        patiently(server)
    assert server.asked == 1

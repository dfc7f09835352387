"""Two processes and one lease, on the API server of the tests."""

import multiprocessing
import os
import signal
import threading
import time
from datetime import datetime
from typing import Any

import pytest

from ivcp.kubernetes import api, lease
from ivcp.kubernetes.api import KubernetesError
from ivcp.kubernetes.lease import Lease, LeaseLostError, held_lease
from tests.kubernetes_api import KubernetesApi


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.05)


def held(duration_seconds: int = 2, patience_seconds: float = 20.0) -> Any:
    return held_lease(
        api.connect(),
        "ivcp",
        "turn",
        patience_seconds=patience_seconds,
        permissions="the role",
        duration_seconds=duration_seconds,
    )


def spec(kubernetes_api: KubernetesApi) -> dict[str, Any]:
    live = kubernetes_api.get("Lease", "turn")
    assert live is not None
    found: dict[str, Any] = live["spec"]
    return found


def test_a_lease_is_renewed_and_given_back(kubernetes_api: KubernetesApi):
    with held(duration_seconds=1) as mine:
        taken = spec(kubernetes_api)
        assert (taken["holderIdentity"], taken["leaseDurationSeconds"]) == (mine.holder, 1)
        time.sleep(1.5)
        renewed = spec(kubernetes_api)
        assert renewed["acquireTime"] == taken["acquireTime"]
        between = datetime.fromisoformat(renewed["renewTime"]) - datetime.fromisoformat(taken["renewTime"])
        assert 0.9 < between.total_seconds() < 1.6
    assert "holderIdentity" not in spec(kubernetes_api)
    began = time.monotonic()
    with held():  # at once, whatever its duration was
        assert spec(kubernetes_api)["leaseTransitions"] == 1
    assert time.monotonic() - began < 0.9


def test_only_one_at_a_time_is_inside(kubernetes_api: KubernetesApi):
    inside, most = [], []

    def work() -> None:
        with held():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.1)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert most == [1] * 6
    assert spec(kubernetes_api)["leaseTransitions"] == 5


def hold_for_ever(kubeconfig: str) -> None:
    os.environ["KUBECONFIG"] = kubeconfig
    with held(duration_seconds=2):
        time.sleep(60)


def test_the_lease_of_a_killed_process_is_taken_over_when_it_has_expired(kubernetes_api: KubernetesApi):
    process = multiprocessing.get_context("forkserver").Process(target=hold_for_ever, args=(os.environ["KUBECONFIG"],))
    process.start()
    while kubernetes_api.get("Lease", "turn") is None:
        time.sleep(0.02)
    time.sleep(2.5)  # longer than its duration: it lives, and renews
    with (
        pytest.raises(KubernetesError, match=r"ivcp/turn is held by \S+ since 20.*longer than 1 s.*delete lease"),
        held(patience_seconds=1.0),
    ):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    began = time.monotonic()
    with held():
        assert spec(kubernetes_api)["leaseTransitions"] == 1
    assert 1.0 < time.monotonic() - began < 6.0


def test_an_outage_of_the_api_server_costs_nobody_the_lease(kubernetes_api: KubernetesApi):
    with held(duration_seconds=1) as mine:
        kubernetes_api.stop()
        time.sleep(1.5)
        kubernetes_api.start()
        mine.check(patience_seconds=10.0)
        assert spec(kubernetes_api)["holderIdentity"] == mine.holder


def check_until_renewed(lease: Lease) -> None:
    """Checks for half a minute: a busy machine renews late."""
    for _ in range(300):
        lease.check(patience_seconds=5.0)
        time.sleep(0.1)


def test_who_lost_the_lease_is_told_before_the_next_write(kubernetes_api: KubernetesApi):
    with held(duration_seconds=3) as mine:
        thief = Lease(api.connect(), "ivcp", "turn", permissions="the role", duration_seconds=3)
        client = api.connect()
        client.call_api(
            "/apis/coordination.k8s.io/v1/namespaces/ivcp/leases/turn",
            "DELETE",
            _request_timeout=5,
            response_type="object",
        )
        thief.acquire(patience_seconds=5.0)
        with pytest.raises(LeaseLostError, match=f"lost to {thief.holder}"):
            check_until_renewed(mine)
    assert spec(kubernetes_api)["holderIdentity"] == thief.holder


def test_an_unanswered_write_is_the_own_one(kubernetes_api: KubernetesApi):
    """The server makes the change, and its answer is lost: the repeated write finds a newer version."""
    with held(duration_seconds=3) as mine:
        live = kubernetes_api.get("Lease", "turn")
        assert live is not None
        mine._replace(live["spec"], 5.0)
        mine._live = live  # as if nothing had been answered
        mine._renewed_at = 0.0
        mine.check(patience_seconds=5.0)
        assert spec(kubernetes_api)["holderIdentity"] == mine.holder


def test_without_the_permission_the_role_is_named(kubernetes_api: KubernetesApi):
    kubernetes_api.faults.allow_only([])
    with pytest.raises(KubernetesError, match=r"the lease turn: .* 403: .*apply the role"), held():
        pass

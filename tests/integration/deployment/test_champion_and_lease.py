"""What serves is the champion, and of two deployments at once neither undoes the other."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ivcp.deployment.on_cluster import ClusterDeployment
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.deployment.step import run_step
from ivcp.kubernetes import api
from ivcp.kubernetes.lease import Lease
from ivcp.records.evaluation import SMOKE_CLIP_FILE, SmokeClip
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import NeverReady

pytestmark = pytest.mark.slow

Deploy = Callable[..., ClusterDeployment]


def served(cluster: KubernetesApi) -> tuple[str, str] | None:
    """The version that is applied; none while a deployment is under way."""
    return None if given.is_under_way(cluster) else given.model_version(cluster)


def wait_for_version_2(cluster: KubernetesApi) -> None:
    while given.model_version(cluster) != ("2", "2"):
        time.sleep(0.02)


def test_a_deployment_that_fails_does_not_undo_the_next_one(old: KubernetesApi, deploy: Deploy):
    """Version 2 is never ready; version 3 comes meanwhile, and waits until version 1 serves again."""
    old.kubelet.behave("run2", NeverReady(), pod=given.STABLE)
    with ThreadPoolExecutor() as threads:
        failing = threads.submit(deploy, 2, serve_timeout_seconds=2.0)
        wait_for_version_2(old)
        waiting = threads.submit(deploy, 3)
        time.sleep(1.0)
        assert given.model_version(old) == ("2", "2")
        error = failing.exception(timeout=60)
        assert waiting.result(timeout=60).model.version == 3
    assert isinstance(error, DeploymentError)
    assert error.__notes__ == ["what action-classifier served before serves again"]
    assert served(old) == ("3", "3")


def test_a_model_from_before_the_one_that_serves_is_refused(old: KubernetesApi, deploy: Deploy):
    deploy(3)
    with pytest.raises(DeploymentError, match=r"version 3 of actions serves, and version 2 was .* serve_take_over"):
        deploy(2)
    assert served(old) == ("3", "3")
    deploy(2, serve_take_over=True)
    assert served(old) == ("2", "2")


def test_who_lost_the_lease_changes_nothing_any_more(old: KubernetesApi, deploy: Deploy):
    """Somebody removes the lease of a deployment that works, and another one begins."""
    old.kubelet.behave("run2", NeverReady(), pod=given.STABLE)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(deploy, 2, serve_timeout_seconds=6.0)
        wait_for_version_2(old)
        lease = Lease(api.connect(), "ivcp", "action-classifier-deployment", permissions="-", duration_seconds=60)
        path = "/apis/coordination.k8s.io/v1/namespaces/ivcp/leases/action-classifier-deployment"
        api.connect().call_api(path, "DELETE", _request_timeout=5, response_type="object")
        lease.acquire(patience_seconds=5.0)
        error = first.exception(timeout=60)
    assert error is not None
    assert f"lost to {lease.holder}" in str([error, *error.__notes__])
    assert given.model_version(old) == ("2", "2")  # the one who holds the lease finds in it what served before


def test_the_champion_moves_last(old: KubernetesApi, deploy: Deploy, clip: SmokeClip):
    seen: list[object] = []
    deploy(2, clip, promote=lambda: seen.append(served(old)))
    assert seen == [("2", "2")]
    old.kubelet.behave("run3", NeverReady())
    with pytest.raises(DeploymentError):
        deploy(3, promote=lambda: seen.append("never"), serve_timeout_seconds=1.0)
    assert seen == [("2", "2")]


def test_a_registry_that_is_away_takes_the_deployment_back(old: KubernetesApi, deploy: Deploy, clip: SmokeClip):
    """Else a model would serve that is not the champion."""

    def away() -> None:
        raise ConnectionError("MLflow does not answer")

    with pytest.raises(ConnectionError, match="MLflow does not answer") as raised:
        deploy(2, clip, promote=away)
    assert raised.value.__notes__ == ["what action-classifier served before serves again"]
    assert served(old) == ("1", "1")


def test_a_step_that_fails_leaves_the_champion(
    old: KubernetesApi, folder: Path, tmp_path: Path, clip: SmokeClip, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("IVCP_STEP_RECORDS", str(tmp_path))
    arguments = given.step_arguments(old, folder, tmp_path / "deployed")
    results = tmp_path / "results"
    results.mkdir()
    for file in (folder / "results").glob("*.json"):
        (results / file.name).write_bytes(file.read_bytes())
    given.wrong(clip).write(results / SMOKE_CLIP_FILE)
    with pytest.raises(DeploymentError, match="it serves another model"):
        run_step(**arguments | {"results": str(results)})
    assert given.champion(folder) == (1, None)
    run_step(**arguments)
    assert given.champion(folder) == (2, "in ivcp/action-classifier")

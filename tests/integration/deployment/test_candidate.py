import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ivcp.deployment.candidate import candidate_url
from ivcp.deployment.cluster_objects import ClusterObjects
from ivcp.deployment.on_cluster import ClusterDeployment
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.kubernetes import api
from ivcp.records.evaluation import SmokeClip
from ivcp.settings import ConfigError
from ivcp.settings.sections.serving import ServingConfig
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import NeverReady
from tests.kubernetes_api.kubectl import Kubectl

pytestmark = pytest.mark.slow


def test_the_candidate_is_what_the_deployment_becomes_but_gets_no_traffic(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    """With the node selector that somebody has patched in; whose Service has nothing but its pod."""
    kubectl(
        "patch",
        "deployment/action-classifier",
        "--patch",
        '{"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}',
    )
    given.wait(lambda: given.is_rolled_out(old))
    deploy(2, clip)
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    applied = {
        seen.body["metadata"]["name"]: seen.body
        for seen in old.faults.requests
        if (seen.verb, seen.resource) == ("patch", "deployments") and seen.manager == "ivcp"
    }
    candidate = applied["action-classifier-candidate"]
    labels = {"app.kubernetes.io/name": "action-classifier-candidate", "ivcp.dev/track": "candidate"}
    assert candidate["spec"]["replicas"] == 1
    assert candidate["spec"]["template"]["spec"]["nodeSelector"] == {"a": "b"}
    assert candidate["spec"]["template"]["metadata"]["labels"].items() >= labels.items()
    assert given.containers(candidate) == given.containers(live)
    stable = old.get("Service", "action-classifier")
    assert stable is not None
    assert not stable["spec"]["selector"].items() <= candidate["spec"]["template"]["metadata"]["labels"].items()
    assert given.candidate(old) == [None, None]


def test_somebody_elses_object_of_the_candidates_name_stays(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "action-classifier-candidate"}}
    kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(theirs | {"spec": {"ports": [{"port": 80}]}}))
    with pytest.raises(
        DeploymentError, match="Service ivcp/action-classifier-candidate exists, and is no candidate of ivcp's"
    ):
        deploy(2, clip)
    assert [kind and kind["kind"] for kind in given.candidate(old)] == [None, "Service"]
    assert given.model_version(old) == ("1", "1")


def test_another_predictor_of_the_candidates_name_stays(old: KubernetesApi, deploy: Callable[..., ClusterDeployment]):
    """Which is of ivcp's making too."""
    name = "action-classifier-candidate"
    deploy(1, serve_name=name, serve_url=old.service_url(name))
    before = given.candidate(old)
    with pytest.raises(DeploymentError, match=f"Deployment ivcp/{name} exists, and is no candidate of ivcp's"):
        deploy(2)
    assert given.candidate(old) == before
    assert None not in before


def test_what_a_killed_deployment_left_is_replaced(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    left = ClusterObjects(api.connect(), "ivcp", patience_seconds=5.0)
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    left.apply(
        {key: live[key] for key in ("apiVersion", "kind", "spec")}
        | {"metadata": {"name": "action-classifier-candidate", "labels": {"ivcp.dev/track": "candidate"}}}
    )
    deploy(2, clip)
    assert given.model_version(old) == ("2", "2")
    assert given.candidate(old) == [None, None]


@pytest.mark.parametrize(
    ("url", "candidate"),
    [
        ("http://actions.ivcp.svc:8080", "http://actions-candidate.ivcp.svc:8080"),
        (
            "http://127.0.0.1:8001/api/v1/namespaces/ivcp/services/actions:http/proxy",
            "http://127.0.0.1:8001/api/v1/namespaces/ivcp/services/actions-candidate:http/proxy",
        ),
        (None, "http://actions-candidate.ivcp.svc"),
    ],
)
def test_the_candidates_address_follows_from_that_of_the_service(url: str | None, candidate: str):
    assert candidate_url(ServingConfig(serve_name="actions", serve_url=url)) == candidate


def test_an_address_that_does_not_name_the_service_asks_for_the_candidates(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    with pytest.raises(ConfigError, match=r"serve_url = https://actions.example.com .* set serve_candidate_url"):
        deploy(2, clip, serve_url="https://actions.example.com")
    assert given.model_version(old) == ("1", "1")


def test_a_step_that_is_terminated_while_its_candidate_starts_removes_that(
    old: KubernetesApi, folder: Path, tmp_path: Path
):
    before = old.get("Deployment", "action-classifier")
    old.kubelet.behave(given.URI, NeverReady())
    arguments = given.step_arguments(old, folder, tmp_path / "deployed")
    process = multiprocessing.get_context("forkserver").Process(
        target=given.run_step_with, args=(os.environ["KUBECONFIG"], arguments)
    )
    process.start()
    given.wait(lambda: None not in given.candidate(old), seconds=60)
    process.terminate()
    process.join(timeout=30)
    assert process.exitcode == 128 + signal.SIGTERM
    assert given.candidate(old) == [None, None]
    assert old.get("Deployment", "action-classifier") == before

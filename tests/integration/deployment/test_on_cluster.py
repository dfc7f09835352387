import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcp.deployment.cluster_objects import FieldConflictError
from ivcp.deployment.on_cluster import ClusterDeployment
from ivcp.deployment.rollout import revision_of
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.deployment.step import run_step
from ivcp.records.evaluation import SmokeClip
from tests.conftest import REPOSITORY
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import BadImage, CrashLoop, NeverReady, Ready, Unschedulable
from tests.kubernetes_api.kubectl import Kubectl
from tests.kubernetes_api.objects import resources

pytestmark = pytest.mark.slow


def test_the_step_rolls_out_and_kubectl_shows_what_serves(
    old: KubernetesApi, folder: Path, tmp_path: Path, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("IVCP_STEP_RECORDS", str(tmp_path))
    assert given.champion(folder) == (1, None)
    run_step(**given.step_arguments(old, folder, tmp_path / "deployed", serve_image="registry.local/ivcp-serving:2"))
    assert given.champion(folder) == (2, "in ivcp/action-classifier")
    result = ClusterDeployment.read(tmp_path / "deployed" / "deployment.json")
    assert result.smoke is not None
    assert result.smoke.max_logit_difference <= 1e-5
    assert (result.revision, result.model.version) == ("2", 2)
    assert given.model_version(old) == ("2", "2")
    described = kubectl("describe", "deployment/action-classifier")
    for line in ("ivcp.dev/model-version: 2", "ivcp.dev/run-id: run2", f"ivcp.dev/model-uri: {given.URI}"):
        assert line in described
    assert not given.is_under_way(old)
    assert "registry.local/ivcp-serving:2" in described
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/action-classifier", "--timeout=20s")
    history = kubectl("rollout", "history", "deployment/action-classifier")
    assert "model actions version 1, top-1 0.9375, run run1" in history
    kubectl("rollout", "undo", "deployment/action-classifier")
    kubectl("rollout", "status", "deployment/action-classifier", "--timeout=20s")
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    assert {"name": "IVCP_MODEL_VERSION", "value": "1"} in given.containers(live)[0]["env"]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (BadImage("manifest unknown"), r"ImagePullBackOff: .*manifest unknown(?s:.*)its events:\n  Failed"),
        (CrashLoop(log="no space left on device"), r"CrashLoopBackOff: exit code 1(?s:.*)no space left on device"),
        (
            NeverReady(),
            r"serve_timeout_seconds = 1\.5: .*readiness probe never(?s:.*)loading the model(?s:.*)Unhealthy",
        ),
        (Unschedulable(), r"no node takes its pod, Unschedulable: .*Insufficient nvidia.com/gpu"),
    ],
)
def test_pods_that_do_not_serve_are_explained_and_what_serves_is_not_touched(
    behaviour: Any, message: str, old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    before = old.get("Deployment", "action-classifier")
    old.kubelet.behave(given.URI, behaviour)
    with pytest.raises(DeploymentError, match=message):
        deploy(2, clip, serve_timeout_seconds=1.5 if isinstance(behaviour, NeverReady | Unschedulable) else 20.0)
    assert old.get("Deployment", "action-classifier") == before
    assert given.candidate(old) == [None, None]
    assert not given.is_under_way(old)


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (BadImage("too many requests"), "ImagePullBackOff: .*too many requests"),
        (Unschedulable(), "no node takes its pod"),
    ],
)
def test_a_rollout_that_fails_after_its_candidate_served_is_taken_back(
    behaviour: Any, message: str, old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    before = old.get("Deployment", "action-classifier")
    old.kubelet.behave(given.URI, behaviour, pod=given.STABLE)
    with pytest.raises(DeploymentError, match=message) as raised:
        deploy(2, clip, serve_timeout_seconds=1.5 if isinstance(behaviour, Unschedulable) else 20.0)
    assert raised.value.__notes__ == ["what action-classifier served before serves again"]
    after = old.get("Deployment", "action-classifier")
    assert before is not None
    assert after is not None
    before["spec"]["progressDeadlineSeconds"] = after["spec"]["progressDeadlineSeconds"]
    assert after["spec"] == before["spec"]
    assert given.model_version(old) == ("1", "1")
    assert not given.is_under_way(old)
    given.wait(lambda: given.is_rolled_out(old))


def test_somebody_elses_config_map_stays(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], kubectl: Kubectl
):
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "action-classifier-before"}}
    kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(theirs | {"data": {"notes": "mine"}}))
    with pytest.raises(DeploymentError, match="ConfigMap ivcp/action-classifier-before exists, and ivcp did not make"):
        deploy(2)
    assert given.is_under_way(old)
    assert given.model_version(old) == ("1", "1")


@pytest.mark.parametrize(
    ("order", "message", "back"),
    [
        (("rollout", "pause"), r"is paused, .*kubectl rollout resume -n ivcp deploy", ("rollout", "resume")),
        (("scale", "--replicas=0"), r"scaled to 0 replicas, .*kubectl scale -n ivcp", ("scale", "--replicas=1")),
    ],
)
def test_a_deployment_that_starts_no_pods_is_said_before_anything_starts(
    order: tuple[str, ...],
    message: str,
    back: tuple[str, ...],
    old: KubernetesApi,
    deploy: Callable[..., ClusterDeployment],
    kubectl: Kubectl,
):
    """A candidate of a paused one would be paused as well."""
    kubectl(*order, "deployment/action-classifier")
    with pytest.raises(DeploymentError, match=message):
        deploy(2)
    assert given.model_version(old) == ("1", "1")
    kubectl(*back, "deployment/action-classifier")
    deploy(2)


def test_a_controller_that_is_late_is_waited_for(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    """Until it has seen a change, the newest pods are those of before: broken ones say nothing of the new ones."""
    broken = given.URI.replace("run2", "run3")
    old.kubelet.behave(broken, BadImage("manifest unknown"))
    old.state.controller_lag_seconds = 0.5
    with pytest.raises(DeploymentError, match="ImagePullBackOff"):
        deploy(3, clip)
    kubectl("set", "env", "deployment/action-classifier", f"IVCP_MODEL_URI={broken}")
    given.wait(lambda: "ImagePullBackOff" in str([pod.get("status") for pod in old.store.list(resources.PODS)]))
    result = deploy(2, clip, serve_take_over=True)
    assert result.model.version == 2
    assert given.model_version(old) == ("2", "2")


def test_after_a_rollout_undo_a_failing_deployment_goes_back_to_what_serves(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    """Undo copies the annotations of an old rollout back: they say nothing of what served before this one."""
    deploy(2, clip)
    kubectl("rollout", "undo", "deployment/action-classifier")
    kubectl("rollout", "status", "deployment/action-classifier", "--timeout=20s")
    undone = old.get("Deployment", "action-classifier")
    assert undone is not None
    old.kubelet.behave(given.URI.replace("run2", "run3"), BadImage("manifest unknown"))
    with pytest.raises(DeploymentError, match="ImagePullBackOff"):
        deploy(3, clip, serve_take_over=True)
    after = old.get("Deployment", "action-classifier")
    assert after is not None
    assert after["spec"]["template"] == undone["spec"]["template"]
    for kind in ("Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert old.get(kind, "action-classifier") is not None
    kubectl("rollout", "status", "deployment/action-classifier", "--timeout=20s")


def test_what_somebody_changed_after_a_killed_deployment_counts(
    old: KubernetesApi, folder: Path, tmp_path: Path, deploy: Callable[..., ClusterDeployment], kubectl: Kubectl
):
    old.kubelet.behave(given.URI, NeverReady(), pod=given.STABLE)
    process = multiprocessing.get_context("forkserver").Process(
        target=given.run_step_with,
        args=(os.environ["KUBECONFIG"], given.step_arguments(old, folder, tmp_path / "deployed")),
    )
    process.start()
    given.wait(lambda: given.model_version(old) == ("2", "2"), seconds=60)
    process.kill()
    process.join()
    assert given.is_under_way(old)
    kubectl("set", "env", "deployment/action-classifier", "IVCP_LOG_LEVEL=debug")
    kubectl("rollout", "undo", "deployment/action-classifier", "--to-revision=1")
    by_hand = old.get("Deployment", "action-classifier")
    assert by_hand is not None
    old.kubelet.behave(given.URI.replace("run2", "run3"), BadImage("manifest unknown"), pod=given.STABLE)
    with pytest.raises(DeploymentError, match="ImagePullBackOff"):
        deploy(3, serve_take_over=True)
    after = old.get("Deployment", "action-classifier")
    assert after is not None
    assert after["spec"]["template"] == by_hand["spec"]["template"]
    assert not given.is_under_way(old)


@pytest.mark.parametrize("pods", ["", given.STABLE], ids=["the candidate", "the rollout"])
def test_a_first_deployment_that_fails_leaves_nothing(
    pods: str,
    kubernetes_api: KubernetesApi,
    deploy: Callable[..., ClusterDeployment],
    predictor: str,
    clip: SmokeClip,
):
    kubernetes_api.kubelet.behave(given.URI, Ready(url=predictor))
    kubernetes_api.kubelet.behave(given.URI, BadImage(), pod=pods)
    with pytest.raises(DeploymentError, match="ImagePullBackOff") as raised:
        deploy(2, clip)
    if pods:
        assert "did not exist before" in raised.value.__notes__[0]
    for kind in ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert kubernetes_api.get(kind, "action-classifier") is None
    assert kubernetes_api.store.list(resources.PODS) == []


def test_another_answer_than_evaluations_never_serves(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    before = old.get("Deployment", "action-classifier")
    with pytest.raises(DeploymentError, match="it serves another model"):
        deploy(2, given.wrong(clip))
    assert old.get("Deployment", "action-classifier") == before


def test_the_deployment_outlives_an_unsteady_api_server(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    old.kubelet.behave(given.URI, Ready(after_seconds=2.0, url=old.state.backends.popitem()[1]))
    old.faults.fail(429, verb="patch", resource="deployments", times=1, retry_after=1)
    old.faults.fail(500, verb="get", resource="deployments", times=2)
    old.faults.fail(410, verb="watch", resource="deployments", times=1)
    troubles = [threading.Timer(0.6, old.store.forget_history), threading.Timer(1.0, old.faults.drop_watches)]
    troubles.append(threading.Timer(1.4, old.restart))
    for trouble in troubles:
        trouble.start()
    result = deploy(2, clip)
    for trouble in troubles:
        trouble.join()
    assert result.model.version == 2
    assert given.model_version(old) == ("2", "2")


def test_two_writers_at_once_are_no_conflict_about_fields(old: KubernetesApi, deploy: Callable[..., ClusterDeployment]):
    """As a namespace with a quota answers: kubernetes/kubernetes#67761."""
    message = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
    old.faults.fail(409, verb="patch", resource="services", message=message)
    assert deploy(2).model.version == 2


def test_a_model_that_was_undone_during_its_rollout_is_not_promoted(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], kubectl: Kubectl
):
    """Also where there is no clip, whose answer would tell."""

    def undo() -> None:
        given.wait(
            lambda: (
                given.model_version(old) == ("2", "2") and revision_of(old.get("Deployment", "action-classifier")) == 2
            )
        )
        kubectl("rollout", "undo", "deployment/action-classifier")

    old.kubelet.behave(given.URI, Ready(after_seconds=15.0), pod=given.STABLE)
    person = threading.Thread(target=undo)
    person.start()
    promoted: list[int] = []
    with pytest.raises(DeploymentError, match="somebody gave action-classifier another model while version 2 was"):
        deploy(2, promote=lambda: promoted.append(2), serve_timeout_seconds=60.0)
    person.join()
    assert given.model_version(old) == ("1", "1")
    assert not promoted


def test_replicas_of_the_autoscaler_stay(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    kubectl("scale", "deployment/action-classifier", "--replicas=3")
    given.wait(lambda: given.is_rolled_out(old))
    deploy(2, clip)
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    assert live["spec"]["replicas"] == 3
    applied = [seen.body for seen in old.faults.requests if seen.verb == "patch" and seen.manager == "ivcp"]
    stable = [
        body for body in applied if (body["kind"], body["metadata"]["name"]) == ("Deployment", "action-classifier")
    ]
    assert stable
    assert not [body for body in stable if "replicas" in body["spec"]]


def test_fields_of_another_manager_are_an_error_that_names_it(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    kubectl("set", "image", "deployment/action-classifier", "predictor=ivcp-serving:hand")
    given.wait(lambda: given.is_rolled_out(old))
    with pytest.raises(FieldConflictError, match=r"(?s)conflict with \"kubectl-set\".*\.image.*serve_take_over: true"):
        deploy(2, clip)
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    assert given.containers(live)[0]["image"] == "ivcp-serving:hand"
    with pytest.raises(DeploymentError, match="it serves another model"):
        deploy(2, given.wrong(clip), serve_take_over=True)
    live = old.get("Deployment", "action-classifier")
    assert live is not None
    assert given.containers(live)[0]["image"] == "ivcp-serving:hand"
    deploy(2, clip, serve_take_over=True)
    assert given.model_version(old) == ("2", "2")


def test_an_autoscaler_that_somebody_changed_is_left_alone(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    kubectl("patch", "hpa/action-classifier", "--patch", '{"spec": {"minReplicas": 4}}')
    deploy(2, clip)
    autoscaler = old.get("HorizontalPodAutoscaler", "action-classifier")
    assert autoscaler is not None
    assert autoscaler["spec"]["minReplicas"] == 4


def test_a_repeated_step_changes_nothing(old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip):
    deploy(2, clip)
    before = old.get("Deployment", "action-classifier")
    deploy(2, clip)
    after = old.get("Deployment", "action-classifier")
    assert before is not None
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_terminated_step_brings_the_old_model_back(
    number: signal.Signals, old: KubernetesApi, folder: Path, tmp_path: Path, deploy: Callable[..., ClusterDeployment]
):
    """SIGKILL leaves no time: the repeated step, which fails as well, knows what served before."""
    old.kubelet.behave(given.URI, NeverReady(), pod=given.STABLE)
    arguments = given.step_arguments(old, folder, tmp_path / "deployed")
    process = multiprocessing.get_context("forkserver").Process(
        target=given.run_step_with, args=(os.environ["KUBECONFIG"], arguments)
    )
    process.start()
    assert process.pid is not None
    given.wait(lambda: given.model_version(old) == ("2", "2"), seconds=60)
    os.kill(process.pid, number)
    process.join(timeout=30)
    if number == signal.SIGTERM:
        assert process.exitcode == 128 + number
    else:
        assert given.model_version(old) == ("2", "2")
        with pytest.raises(DeploymentError) as raised:
            deploy(2, serve_timeout_seconds=1.0)
        assert raised.value.__notes__ == ["what action-classifier served before serves again"]
    assert given.model_version(old) == ("1", "1")


def test_the_roles_of_the_manifests_suffice(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip
):
    rules = _role("serving")
    old.faults.allow_only([*rules, {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get", "create"]}])
    deploy(2, clip)
    old.kubelet.behave("run3", CrashLoop())
    with pytest.raises(DeploymentError, match="CrashLoopBackOff"):
        deploy(3, clip)


def _role(name: str) -> list[dict[str, Any]]:
    for path in sorted((REPOSITORY / "manifests").rglob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if isinstance(body, dict) and body.get("kind") == "Role" and name in body["metadata"]["name"]:
                rules: list[dict[str, Any]] = body["rules"]
                return rules
    pytest.fail(f"no Role {name} in manifests")

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ivcp.deployment.candidate import candidate_url
from ivcp.deployment.cluster_objects import ClusterObjects, FieldConflictError
from ivcp.deployment.on_cluster import ClusterDeployment
from ivcp.deployment.rollout import revision_of
from ivcp.deployment.smoke_test import DeploymentError
from ivcp.deployment.step import run_step
from ivcp.kubernetes import api
from ivcp.records.evaluation import SmokeClip
from ivcp.settings import ConfigError
from ivcp.settings.sections.serving import ServingConfig
from tests.conftest import REPOSITORY
from tests.integration.deployment import deployed_model as given
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.behaviours import BadImage, CrashLoop, NeverReady, Ready, Unschedulable
from tests.kubernetes_api.kubectl import Kubectl
from tests.kubernetes_api.objects import resources

pytestmark = pytest.mark.slow


def _wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def _is_rolled_out(api: KubernetesApi) -> bool:
    live = api.get("Deployment", "action-classifier")
    assert live is not None
    status = live["status"]
    return status["observedGeneration"] == live["metadata"]["generation"] and status.get("unavailableReplicas", 0) == 0


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
    assert _candidate(old) == [None, None]
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
    _wait(lambda: _is_rolled_out(old))


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
    _wait(lambda: _is_rolled_out(old))
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
    assert _candidate(old) == [None, None]


def test_somebody_elses_object_of_the_candidates_name_stays(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], clip: SmokeClip, kubectl: Kubectl
):
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "action-classifier-candidate"}}
    kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(theirs | {"spec": {"ports": [{"port": 80}]}}))
    with pytest.raises(
        DeploymentError, match="Service ivcp/action-classifier-candidate exists, and is no candidate of ivcp's"
    ):
        deploy(2, clip)
    assert [kind and kind["kind"] for kind in _candidate(old)] == [None, "Service"]
    assert given.model_version(old) == ("1", "1")


def test_another_predictor_of_the_candidates_name_stays(old: KubernetesApi, deploy: Callable[..., ClusterDeployment]):
    """Which is of ivcp's making too."""
    name = "action-classifier-candidate"
    deploy(1, serve_name=name, serve_url=old.service_url(name))
    before = _candidate(old)
    with pytest.raises(DeploymentError, match=f"Deployment ivcp/{name} exists, and is no candidate of ivcp's"):
        deploy(2)
    assert _candidate(old) == before
    assert None not in before


def test_somebody_elses_config_map_stays(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], kubectl: Kubectl
):
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "action-classifier-before"}}
    kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(theirs | {"data": {"notes": "mine"}}))
    with pytest.raises(DeploymentError, match="ConfigMap ivcp/action-classifier-before exists, and ivcp did not make"):
        deploy(2)
    assert given.is_under_way(old)
    assert given.model_version(old) == ("1", "1")


def test_a_paused_deployment_is_said_before_anything_starts(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], kubectl: Kubectl
):
    """Its controller makes no pods of a new template, and a candidate would be paused as well."""
    kubectl("rollout", "pause", "deployment/action-classifier")
    with pytest.raises(DeploymentError, match=r"action-classifier is paused, .*kubectl rollout resume -n ivcp deploy"):
        deploy(2)
    assert given.model_version(old) == ("1", "1")
    kubectl("rollout", "resume", "deployment/action-classifier")
    deploy(2)


def test_a_deployment_without_replicas_is_said_before_anything_starts(
    old: KubernetesApi, deploy: Callable[..., ClusterDeployment], kubectl: Kubectl
):
    kubectl("scale", "deployment/action-classifier", "--replicas=0")
    with pytest.raises(DeploymentError, match=r"was scaled to 0 replicas, .*kubectl scale -n ivcp deployment/action"):
        deploy(2)
    assert given.model_version(old) == ("1", "1")


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
    assert _candidate(old) == [None, None]


def _candidate(cluster: KubernetesApi) -> list[dict[str, Any] | None]:
    return [cluster.get(kind, "action-classifier-candidate") for kind in ("Deployment", "Service")]


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
    _wait(lambda: "ImagePullBackOff" in str([pod.get("status") for pod in old.store.list(resources.PODS)]))
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
    _wait(lambda: given.model_version(old) == ("2", "2"), seconds=60)
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
        _wait(
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
    _wait(lambda: _is_rolled_out(old))
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
    _wait(lambda: _is_rolled_out(old))
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
    _wait(lambda: given.model_version(old) == ("2", "2"), seconds=60)
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
    _wait(lambda: None not in _candidate(old), seconds=60)
    process.terminate()
    process.join(timeout=30)
    assert process.exitcode == 128 + signal.SIGTERM
    assert _candidate(old) == [None, None]
    assert old.get("Deployment", "action-classifier") == before


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

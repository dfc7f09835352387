"""The API server of the tests itself: what the other tests rely on, asked by the real clients."""

import json
import threading
import time
from typing import Any

import pytest
import yaml
from kubernetes import client, config, watch

from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.controllers.trainjobs import JobHandle
from tests.kubernetes_api.kubectl import Kubectl
from tests.kubernetes_api.objects.resources import PODS

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "ivcp"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}]}]},
        },
    },
}
TRAINJOB = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {"name": "job", "namespace": "ivcp"},
    "spec": {
        "runtimeRef": {"kind": "TrainingRuntime", "name": "ivcp-torch"},
        "trainer": {"numNodes": 2, "image": "t:1"},
    },
}


@pytest.fixture
def clients(kubernetes_api: KubernetesApi) -> client.ApiClient:
    configuration = client.Configuration()
    config.load_kube_config(client_configuration=configuration)
    configuration.retries = False
    return client.ApiClient(configuration)


def _with_image(image: str) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(DEPLOYMENT))
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return changed


def _apply(clients: client.ApiClient, body: dict[str, Any], manager: str, *, force: bool = False) -> Any:
    return clients.call_api(
        "/apis/apps/v1/namespaces/ivcp/deployments/web",
        "PATCH",
        query_params=[("fieldManager", manager), ("force", str(force).lower())],
        header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
        body=body,
        response_type="object",
        _return_http_data_only=True,
    )


def _wait(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_two_appliers_conflict_until_one_forces(clients: client.ApiClient):
    _apply(clients, DEPLOYMENT, "one")
    _apply(clients, DEPLOYMENT, "two")  # the same values are shared
    with pytest.raises(client.ApiException) as raised:
        _apply(clients, _with_image("web:2"), "two")
    status = json.loads(raised.value.body)
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert status["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "one" using apps/v1',
            "field": '.spec.template.spec.containers[name="web"].image',
        }
    ]
    live = _apply(clients, _with_image("web:2"), "two", force=True)
    owners = {entry["manager"]: json.dumps(entry["fieldsV1"]) for entry in live["metadata"]["managedFields"]}
    assert "f:image" not in owners["one"]
    assert "f:image" in owners["two"]


def test_what_an_applier_leaves_out_goes_unless_another_owns_it(clients: client.ApiClient):
    both = json.loads(json.dumps(DEPLOYMENT))
    both["metadata"]["annotations"] = {"mine": "1", "shared": "1"}
    other = {key: DEPLOYMENT[key] for key in ("apiVersion", "kind")} | {"metadata": {"annotations": {"shared": "1"}}}
    _apply(clients, both, "one")
    _apply(clients, other, "two")
    live = _apply(clients, DEPLOYMENT, "one")
    annotations = {k: v for k, v in live["metadata"]["annotations"].items() if "kubernetes.io" not in k}
    assert annotations == {"shared": "1"}
    without_env = json.loads(json.dumps(DEPLOYMENT))
    del without_env["spec"]["template"]["spec"]["containers"][0]["env"]
    live = _apply(clients, without_env, "one")
    assert "env" not in live["spec"]["template"]["spec"]["containers"][0]


def test_an_old_version_cannot_be_written(clients: client.ApiClient):
    _apply(clients, DEPLOYMENT, "one")
    apps = client.AppsV1Api(clients)
    old = apps.read_namespaced_deployment("web", "ivcp")
    apps.patch_namespaced_deployment_scale("web", "ivcp", {"spec": {"replicas": 2}})
    old.spec.replicas = 3
    with pytest.raises(client.ApiException, match="the object has been modified"):
        apps.replace_namespaced_deployment("web", "ivcp", old)


def test_unknown_fields_are_refused(clients: client.ApiClient):
    wrong = json.loads(json.dumps(DEPLOYMENT))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(client.ApiException, match="imagePolicy"):
        _apply(clients, wrong, "one")
    custom = client.CustomObjectsApi(clients)
    body = {**TRAINJOB, "spec": {**TRAINJOB["spec"], "nodes": 2}}
    with pytest.raises(client.ApiException, match="unknown field"):
        custom.create_namespaced_custom_object("trainer.kubeflow.org", "v1alpha1", "ivcp", "trainjobs", body)


def test_a_watch_sees_changes_and_is_told_when_it_is_too_old(kubernetes_api: KubernetesApi, clients: client.ApiClient):
    core, seen = client.CoreV1Api(clients), []
    names = {"metadata": {"name": "settings"}}
    version = core.list_namespaced_config_map("ivcp").metadata.resource_version
    core.create_namespaced_config_map("ivcp", names | {"data": {"a": "1"}})
    core.delete_namespaced_config_map("settings", "ivcp")
    for event in watch.Watch().stream(
        core.list_namespaced_config_map, "ivcp", resource_version=version, timeout_seconds=1
    ):
        seen.append(event["type"])
    assert seen == ["ADDED", "DELETED"]
    kubernetes_api.store.forget_history()
    with pytest.raises(client.ApiException, match="too old resource version"):
        next(watch.Watch().stream(core.list_namespaced_config_map, "ivcp", resource_version=version, timeout_seconds=1))


def test_faults_are_injected(kubernetes_api: KubernetesApi, clients: client.ApiClient):
    core = client.CoreV1Api(clients)
    kubernetes_api.faults.fail(429, verb="list", resource="pods", retry_after=3)
    with pytest.raises(client.ApiException) as raised:
        core.list_namespaced_pod("ivcp")
    assert raised.value.headers["Retry-After"] == "3"
    core.list_namespaced_pod("ivcp")
    kubernetes_api.faults.allow_only([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    with pytest.raises(client.ApiException, match="Forbidden"):
        core.list_namespaced_pod("ivcp")


def test_a_restart_breaks_streams_off_and_keeps_the_objects(kubernetes_api: KubernetesApi, clients: client.ApiClient):
    _apply(clients, DEPLOYMENT, "one")
    restart = threading.Timer(0.3, kubernetes_api.restart)
    restart.start()
    apps = client.AppsV1Api(clients)
    with pytest.raises(Exception, match=r"Connection broken|IncompleteRead|Response ended prematurely"):
        list(watch.Watch().stream(apps.list_namespaced_deployment, "ivcp", timeout_seconds=20))
    restart.join()
    assert apps.read_namespaced_deployment("web", "ivcp").metadata.name == "web"


def test_a_training_job_follows_its_script(kubernetes_api: KubernetesApi, clients: client.ApiClient):
    def script(job: JobHandle):
        job.start_pods()
        job.log(1, "step 1")
        yield 0.05
        job.log(1, "step 2")
        yield 0.05
        job.fail("out of memory", exit_code=137)

    kubernetes_api.trainer.script("job", script)
    custom, core = client.CustomObjectsApi(clients), client.CoreV1Api(clients)
    kind = ("trainer.kubeflow.org", "v1alpha1", "ivcp", "trainjobs")
    custom.create_namespaced_custom_object(*kind, TRAINJOB)
    selector = "jobset.sigs.k8s.io/jobset-name=job"
    _wait(lambda: len(core.list_namespaced_pod("ivcp", label_selector=selector).items) == 2)
    name = next(pod.metadata.name for pod in core.list_namespaced_pod("ivcp").items if "-0-1-" in pod.metadata.name)
    log = core.read_namespaced_pod_log(name, "ivcp", follow=True)
    assert log.splitlines() == ["step 1", "step 2"]
    job = custom.get_namespaced_custom_object(*kind, "job")
    assert [c["type"] for c in job["status"]["conditions"]] == ["Failed"]
    custom.delete_namespaced_custom_object(*kind, "job")
    assert core.list_namespaced_pod("ivcp").items == []


def test_kubectl_works_on_it(kubernetes_api: KubernetesApi, kubectl: Kubectl):
    kubectl("apply", "--server-side", "--field-manager=ivcp", "-f", "-", stdin=yaml.safe_dump(DEPLOYMENT))
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=second")
    kubectl("set", "image", "deployment/web", "web=web:2")
    kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    kubectl("scale", "deployment/web", "--replicas=2")
    assert kubectl("rollout", "history", "deployment/web").split()[-1] == "second"
    assert "predictor: model loaded" in kubectl("logs", "deployment/web")
    kubectl("rollout", "undo", "deployment/web")
    described = kubectl("describe", "deployment/web")
    assert "web:1" in described
    assert "2 desired" in described
    conflict = kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(_with_image("web:3")), fails=True)
    assert 'conflict with "kubectl" using apps/v1: .spec.template' in conflict
    kubectl("rollout", "pause", "deployment/web")
    kubectl("set", "image", "deployment/web", "web=web:4")
    kubectl("scale", "deployment/web", "--replicas=3")
    _wait(lambda: len(kubernetes_api.store.list(PODS)) == 3)
    assert {pod["spec"]["containers"][0]["image"] for pod in kubernetes_api.store.list(PODS)} == {"web:1"}
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=20s")
    assert {pod["spec"]["containers"][0]["image"] for pod in kubernetes_api.store.list(PODS)} == {"web:4"}
    kubectl("delete", "deployment/web")
    assert kubernetes_api.store.list(PODS) == []


LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "turn", "namespace": "ivcp"},
    "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-11-29T08:00:00.000000Z"},
}


def test_of_two_writers_of_a_lease_one_is_refused(clients: client.ApiClient):
    leases = client.CoordinationV1Api(clients)
    made = clients.sanitize_for_serialization(leases.create_namespaced_lease("ivcp", LEASE))
    with pytest.raises(client.ApiException) as raised:
        leases.create_namespaced_lease("ivcp", LEASE)
    assert (raised.value.status, json.loads(raised.value.body)["reason"]) == (409, "AlreadyExists")

    def replace(version: str | None, **changed: Any) -> Any:
        metadata = LEASE["metadata"] | ({"resourceVersion": version} if version else {})
        return leases.replace_namespaced_lease(
            "turn", "ivcp", LEASE | {"metadata": metadata, "spec": LEASE["spec"] | changed}
        )

    version = made["metadata"]["resourceVersion"]
    assert replace(version, holderIdentity="b").spec.holder_identity == "b"
    for sent, changed, status, reason in (
        (version, {"holderIdentity": "c"}, 409, "Conflict"),
        (None, {"holderIdentity": "c"}, 422, "Invalid"),
        (None, {"renewTime": "2026-11-29T08:00:00Z"}, 422, "Invalid"),
    ):
        with pytest.raises(client.ApiException) as raised:
            replace(sent, **changed)
        assert (raised.value.status, json.loads(raised.value.body)["reason"]) == (status, reason)
    newest = leases.read_namespaced_lease("turn", "ivcp")
    assert newest.spec.holder_identity == "b"
    for wrong in ({"renewTime": "2026-11-29T08:00:00.5Z"}, {"leaseDurationSeconds": 0}):
        with pytest.raises(client.ApiException) as raised:
            replace(newest.metadata.resource_version, **wrong)
        assert raised.value.status in (400, 422)

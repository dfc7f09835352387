import json

import pytest

from ivcp.deployment.applied_fields import applied_by
from ivcp.deployment.predictor_manifests import ServedModel, predictor_manifests

MODEL = ServedModel(uri="s3://models/actions/run", name="actions", version=7, run_id="run", top1_accuracy=0.91)


@pytest.fixture
def manifests():
    found = predictor_manifests(
        MODEL, name="gestures", namespace="teams", image="registry/ivcp-serving@sha256:1", progress_seconds=600
    )
    return {manifest["kind"]: manifest for manifest in found}


def test_the_deployment_is_filled_in_for_the_model(manifests):
    deployment = manifests["Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry/ivcp-serving@sha256:1"
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["IVCP_MODEL_URI"] == MODEL.uri
    assert environment["IVCP_MODEL_VERSION"] == "7"
    assert deployment["metadata"]["annotations"] == {
        "ivcp.dev/model-name": "actions",
        "ivcp.dev/model-version": "7",
        "ivcp.dev/model-uri": MODEL.uri,
        "ivcp.dev/run-id": "run",
        "ivcp.dev/top1-accuracy": "0.9100",
        "kubernetes.io/change-cause": "model actions version 7, top-1 0.9100, run run",
    }
    assert deployment["spec"]["progressDeadlineSeconds"] == 600
    assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize("trusted", [False, True])
def test_pods_run_a_models_own_code_only_where_that_is_trusted(trusted):
    found = predictor_manifests(
        MODEL, name="a", namespace="b", image="c", progress_seconds=600, trust_remote_code=trusted
    )
    deployment = next(manifest for manifest in found if manifest["kind"] == "Deployment")
    environment = {entry["name"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert ("IVCP_TRUST_REMOTE_CODE" in environment) == trusted


def test_every_name_and_selector_is_the_deployments_own(manifests):
    assert {(m["metadata"]["name"], m["metadata"]["namespace"]) for m in manifests.values()} == {("gestures", "teams")}
    assert manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "gestures"
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert "action-classifier" not in json.dumps(manifests)


def test_applied_fields_come_back_with_their_values():
    fields = {
        "f:metadata": {"f:labels": {"f:app": {}}},
        "f:spec": {
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:name": {}, "f:image": {}}}}},
            "f:finalizers": {'v:"x"': {}},
            "f:emptyDir": {},
        },
    }
    live = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "n",
            "namespace": "ns",
            "labels": {"app": "n", "other": "1"},
            "managedFields": [{"manager": "ivcp", "operation": "Apply", "fieldsV1": fields}],
        },
        "spec": {
            "replicas": 3,
            "emptyDir": {},
            "finalizers": ["x", "y"],
            "template": {"spec": {"containers": [{"name": "a", "image": "i", "tty": True}, {"name": "b"}]}},
        },
    }
    assert applied_by("ivcp", live) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "n", "namespace": "ns", "labels": {"app": "n"}},
        "spec": {
            "emptyDir": {},
            "finalizers": ["x"],
            "template": {"spec": {"containers": [{"name": "a", "image": "i"}]}},
        },
    }
    assert applied_by("kubectl", live) is None

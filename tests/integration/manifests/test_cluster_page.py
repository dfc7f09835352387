"""docs/cluster.md: its kubectl commands work, in their order, with the real kubectl against an API server."""

import json
import re
import shlex

import pytest
import yaml

from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.kubectl import Kubectl
from tests.unit.manifests.policy import example_secrets
from tests.unit.manifests.rendered import ROOT

NOT_ON_LOOPBACK = {
    "port-forward": "needs a kubelet",
    "statefulset/postgres": "the server runs no StatefulSets",
    "manifests/serving/kserve": "the server has no InferenceServices",
    "inferenceservice": "the server has no InferenceServices",
    "create secret": "kubectl sends protobuf: see test_secrets_have_the_documented_keys",
    "create configmap": "kubectl sends protobuf",
}


def _commands() -> list[str]:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("kubectl ")]


@pytest.fixture
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
@pytest.mark.usefixtures("in_repository")
def test_the_pages_commands_work(kubernetes_api: KubernetesApi, kubectl: Kubectl):
    used = set()
    for command in _commands():
        used |= (left_out := {words for words in NOT_ON_LOOPBACK if words in command})
        if not left_out:
            kubectl(*shlex.split(command)[1:])
    assert used == set(NOT_ON_LOOPBACK)

    deployment = kubernetes_api.get("Deployment", "action-classifier")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "IVCP_MODEL_URI", "value": "s3://ivcp/models/walks/8"} in container["env"]
    assert deployment["status"]["availableReplicas"] == 1
    assert kubernetes_api.get("HorizontalPodAutoscaler", "action-classifier")["spec"]["maxReplicas"] == 12


@pytest.mark.usefixtures("in_repository")
def test_secrets_have_the_documented_keys(kubectl: Kubectl):
    examples = {item["metadata"]["name"]: item for item in example_secrets()}
    created = [command for command in _commands() if "create secret" in command]
    assert created
    for command in created:
        made = yaml.safe_load(kubectl(*shlex.split(command)[1:], "--dry-run=client", "-o", "yaml"))
        example = examples[made["metadata"]["name"]]
        assert made["metadata"]["namespace"] == example["metadata"]["namespace"] == "ivcp"
        assert set(made["data"]) <= set(example["stringData"])


@pytest.mark.usefixtures("in_repository")
def test_the_pipeline_takes_a_predictor_over_and_leaves_its_place(kubernetes_api: KubernetesApi, kubectl: Kubectl):
    """What the page says of `serve_take_over`, with the template as the pipeline applies it."""
    kubectl("apply", "-k", "manifests/overlays/gke/serving")
    template = yaml.safe_load((ROOT / "ivcp/deployment/manifests/deployment.yaml").read_text(encoding="utf-8"))
    as_pipeline = ["apply", "-n", "ivcp", "--server-side", "--field-manager=ivcp", "-f", "-"]

    assert ".image" in kubectl(*as_pipeline, stdin=json.dumps(template), fails=True)
    kubectl(*as_pipeline, "--force-conflicts", stdin=json.dumps(template))

    pod = kubernetes_api.get("Deployment", "action-classifier")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == template["spec"]["template"]["spec"]["containers"][0]["image"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.usefixtures("in_repository")
def test_one_more_overlay_is_accepted(kubectl: Kubectl):
    for part in ("", "/training", "/serving"):
        assert "created" in kubectl("apply", "-k", f"manifests/overlays/on-prem{part}")

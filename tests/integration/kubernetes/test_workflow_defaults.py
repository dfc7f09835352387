"""What `ivcp submit` says of a cluster whose Argo tries failing steps once."""

import logging

import pytest
import yaml

from ivcp.kubernetes.workflow_defaults import warn_of_retries
from tests.kubernetes_api.kubectl import Kubectl

OF_KFP_2_17 = {"spec": {"templateDefaults": {"retryStrategy": {"limit": 2, "retryPolicy": "OnError"}}}}
BY_AN_ADMINISTRATOR = {"spec": {"templateDefaults": {"retryStrategy": {"limit": 2, "retryPolicy": "Always"}}}}


@pytest.mark.parametrize(
    ("data", "is_warned"),
    [
        ({"workflowDefaults": yaml.safe_dump(OF_KFP_2_17)}, True),
        ({"config": yaml.safe_dump({"workflowDefaults": OF_KFP_2_17})}, True),
        ({"workflowDefaults": yaml.safe_dump(BY_AN_ADMINISTRATOR)}, False),
        ({"executor": "imagePullPolicy: IfNotPresent"}, False),
        ({"config": "a: [unclosed"}, False),
        (None, False),
    ],
)
def test_steps_that_are_tried_once_are_named(kubectl: Kubectl, tmp_path, caplog, data, is_warned):
    if data is not None:
        metadata = {"name": "workflow-controller-configmap", "namespace": "kubeflow"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        (tmp_path / "defaults.yaml").write_text(yaml.safe_dump(body))
        kubectl("apply", "-f", str(tmp_path / "defaults.yaml"))
    with caplog.at_level(logging.WARNING):
        warn_of_retries()
    assert ("tries a failing step once" in caplog.text) is is_warned


def test_no_cluster_is_no_reason_to_say_anything(monkeypatch: pytest.MonkeyPatch, caplog, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with caplog.at_level(logging.WARNING):
        warn_of_retries()
    assert caplog.text == ""

"""What a cluster has to say of TrainJobs: that it knows none, and what Kueue says of one that waits for its quota."""

import pytest

from ivcp.kubernetes.api import KubernetesError
from ivcp.launch.trainjob import api
from ivcp.launch.trainjob.api import JobCluster
from tests.kubernetes_api import KubernetesApi
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager

JOB = {"metadata": {"uid": "4711"}}


def test_a_cluster_without_the_trainer_is_told_from_one_without_the_job(
    kubernetes_api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
):
    cluster = JobCluster("ivcp")
    assert cluster.job("missing") is None
    monkeypatch.setattr(api, "VERSION", "v9")
    with pytest.raises(KubernetesError, match=r"404 page not found; the cluster does not know .* install its operator"):
        cluster.job("missing")


def test_why_a_job_waits(kubernetes_api: KubernetesApi):
    cluster = JobCluster("ivcp")
    assert cluster.queue_message(JOB) is None
    owner = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "name": "job", "uid": "4711"}
    body = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {"name": "trainjob-job", "ownerReferences": [owner]},
        "spec": {},
    }
    made = kubernetes_api.store.create(resources.WORKLOADS, "ivcp", body, manager=Manager("kueue", "Update", "v1beta2"))
    message = "couldn't assign flavors to pod set node: insufficient unused quota for nvidia.com/gpu, 1 more needed"
    waiting = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}

    def wait(live):
        return {**live, "status": {"conditions": [waiting]}}

    kubernetes_api.store.change(
        resources.WORKLOADS, "ivcp", made["metadata"]["name"], wait, manager=Manager("kueue", "Update", "v1beta2")
    )
    assert cluster.queue_message(JOB) == message
    assert cluster.queue_message({"metadata": {"uid": "another"}}) is None

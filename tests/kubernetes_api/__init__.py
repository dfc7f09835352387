"""A Kubernetes API server on loopback for tests: the real clients and kubectl talk to it.

It behaves as kube-apiserver does in what this project uses: discovery, create/read/update/delete with optimistic
locking, merge, strategic and JSON patches, server-side apply with managed fields and conflicts, watches, subresources,
pods' logs and events.
Controllers move Deployments, ReplicaSets, Pods and TrainJobs over time as a test asks, and faults can be
injected. Schemas come from `kubernetes-validate`, which also say how lists merge.
"""

from tests.kubernetes_api.server import KubernetesApi

__all__ = ["KubernetesApi"]

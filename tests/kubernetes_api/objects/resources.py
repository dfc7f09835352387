"""The resources that the server knows, and the discovery documents that name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Resource:
    """One kind at one version."""

    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects spell it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None, name: str = "") -> str:
        """The path of a collection or an object."""
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.root}{middle}/{self.plural}" + (f"/{name}" if name else "")


NAMESPACES = Resource("", "v1", "Namespace", "namespaces", ("ns",), ("status",), namespaced=False)
PODS = Resource("", "v1", "Pod", "pods", ("po",), ("status", "log"))
SERVICES = Resource("", "v1", "Service", "services", ("svc",), ("status", "proxy"))
EVENTS = Resource("", "v1", "Event", "events", ("ev",))
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", ("deploy",), ("status", "scale"))
REPLICASETS = Resource("apps", "v1", "ReplicaSet", "replicasets", ("rs",), ("status", "scale"))
AUTOSCALERS = Resource(
    "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", ("hpa",), ("status",)
)
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
TRAINJOBS = Resource("trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs", (), ("status",))
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "Workload", "workloads", (), ("status",))  # the only one since 0.20
TRAINING_RUNTIMES = Resource("trainer.kubeflow.org", "v1alpha1", "TrainingRuntime", "trainingruntimes")

RESOURCES = (
    NAMESPACES,
    PODS,
    SERVICES,
    EVENTS,
    DEPLOYMENTS,
    REPLICASETS,
    AUTOSCALERS,
    LEASES,
    TRAINJOBS,
    TRAINING_RUNTIMES,
    WORKLOADS,
    Resource("trainer.kubeflow.org", "v1alpha1", "ClusterTrainingRuntime", "clustertrainingruntimes", namespaced=False),
    Resource("", "v1", "ConfigMap", "configmaps", ("cm",)),
    Resource("", "v1", "Secret", "secrets"),
    Resource("", "v1", "ServiceAccount", "serviceaccounts", ("sa",)),
    Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", ("pvc",), ("status",)),
    Resource("apps", "v1", "StatefulSet", "statefulsets", ("sts",), ("status", "scale")),
    Resource("batch", "v1", "Job", "jobs", (), ("status",)),
    Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", ("pdb",), ("status",)),
    Resource("networking.k8s.io", "v1", "Ingress", "ingresses", ("ing",), ("status",)),
    Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", ("netpol",)),
    Resource("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", ("sc",), namespaced=False),
)
_BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_KIND = {(r.api_version, r.kind): r for r in RESOURCES}


def by_path(group: str, version: str, plural: str) -> Resource | None:
    return _BY_PATH.get((group, version, plural))


def of_object(body: dict[str, Any]) -> Resource | None:
    return _BY_KIND.get((body.get("apiVersion", ""), body.get("kind", "")))


def group_list() -> dict[str, Any]:
    """What `/apis` answers."""
    versions = dict.fromkeys((r.group, r.version) for r in RESOURCES if r.group)
    groups = []
    for group, version in versions:
        entry = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def resource_list(group: str, version: str) -> dict[str, Any] | None:
    """What `/api/v1` and `/apis/<group>/<version>` answer; null for an unknown one."""
    found = [r for r in RESOURCES if (r.group, r.version) == (group, version)]
    if not found:
        return None
    entries: list[dict[str, Any]] = []
    for resource in found:
        entry = {"kind": resource.kind, "namespaced": resource.namespaced, "singularName": resource.kind.lower()}
        categories = ["all"] if resource.kind in ("Pod", "Service", "Deployment", "ReplicaSet") else []
        names = {"shortNames": list(resource.short_names), "categories": categories}
        entries.append(entry | names | {"name": resource.plural, "verbs": VERBS})
        for sub in resource.subresources:
            scale = {"kind": "Scale", "group": "autoscaling", "version": "v1"} if sub == "scale" else {}
            verbs = ["get"] if sub in ("log", "proxy") else ["get", "patch", "update"]
            entries.append(entry | scale | {"name": f"{resource.plural}/{sub}", "singularName": "", "verbs": verbs})
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}

"""The controller of Deployments and ReplicaSets: revisions, rolling updates, progress deadlines.

Seen on Kubernetes 1.36: a rollout copies the Deployment's annotations to its ReplicaSet, and `kubectl rollout undo`
copies them back, as the field manager `kubectl-rollout`. The latter is kubectl's own doing: the real one does it here.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from typing import Any

from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.selectors import expression
from tests.kubernetes_api.objects.store import Object
from tests.kubernetes_api.objects.times import now, seconds_since
from tests.kubernetes_api.state import ClusterState, is_ready

REVISION = "deployment.kubernetes.io/revision"
_HASH = "pod-template-hash"
_NOT_COPIED = (REVISION, "kubectl.kubernetes.io/last-applied-configuration", "deprecated.deployment.rollback.to")
_MANAGER = Manager("kube-controller-manager", "Update", "apps/v1")
_STATUS = Manager("kube-controller-manager", "Update", "apps/v1", "status")


def tick(state: ClusterState) -> None:
    """One round over all Deployments."""
    for deployment in state.store.list(resources.DEPLOYMENTS):
        metadata = deployment["metadata"]
        seen = state.generations.setdefault((metadata["uid"], metadata["generation"]), time.monotonic())
        if time.monotonic() - seen >= state.controller_lag_seconds:
            _Rollout(state, deployment).advance()


class _Rollout:
    def __init__(self, state: ClusterState, deployment: Object) -> None:
        self.state, self.store, self.deployment = state, state.store, deployment
        self.metadata, self.spec = deployment["metadata"], deployment["spec"]
        self.namespace: str = self.metadata["namespace"]

    def advance(self) -> None:
        """Moves one step towards what the Deployment asks for, and writes its status."""
        if self.spec.get("paused") and self._set_of_template() is None:
            self._scale_what_is_there()
            return
        newest = self._newest_replica_set()
        self._annotate(newest)
        old = [rs for rs in self._replica_sets() if rs["metadata"]["uid"] != newest["metadata"]["uid"]]
        fresh = self._pods(newest)
        wanted = self.spec["replicas"]
        self._scale(newest, wanted)
        if sum(map(is_ready, fresh)) >= wanted:
            for replica_set in old:
                self._scale(replica_set, 0)
            self._forget(old)
        elif old:
            for replica_set in old:
                self._scale(replica_set, min(wanted, len(self._pods(replica_set))))
        self._write_status(self._pods(newest), [pod for rs in old for pod in self._pods(rs)])

    def _replica_sets(self) -> list[Object]:
        found = self.store.list(resources.REPLICASETS, self.namespace, expression(self.spec["selector"]))
        return [rs for rs in found if _owned_by(rs, self.deployment)]

    def _scale_what_is_there(self) -> None:
        """A paused Deployment gets no ReplicaSet for a new template (read in `sync.go` of kubernetes/kubernetes)."""
        sets = sorted(self._replica_sets(), key=_revision)
        if sets:
            self._scale(sets[-1], self.spec["replicas"])
        self._write_status([], [pod for rs in sets for pod in self._pods(rs)])

    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.spec["template"], sort_keys=True).encode()).hexdigest()[:10]

    def _set_of_template(self) -> Object | None:
        name = f"{self.metadata['name']}-{self._digest()}"
        return next((rs for rs in self._replica_sets() if rs["metadata"]["name"] == name), None)

    def _newest_replica_set(self) -> Object:
        template, digest = copy.deepcopy(self.spec["template"]), self._digest()
        highest = max(map(_revision, self._replica_sets()), default=0)
        name = f"{self.metadata['name']}-{digest}"
        existing = self._set_of_template()
        if existing:
            if _revision(existing) < highest:
                self._set_revision(existing, highest + 1)
                return self.store.get(resources.REPLICASETS, self.namespace, name)
            return existing
        labels = {**template.get("metadata", {}).get("labels", {}), _HASH: digest}
        template["metadata"] = {**template.get("metadata", {}), "labels": labels}
        selector = {"matchLabels": {**self.spec["selector"]["matchLabels"], _HASH: digest}}
        body = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": self._copied() | {REVISION: str(highest + 1)},
                "ownerReferences": [_owner(self.deployment)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }
        return self.store.create(resources.REPLICASETS, self.namespace, body, manager=_MANAGER)

    def _copied(self) -> dict[str, str]:
        annotations = self.metadata.get("annotations", {})
        return {key: value for key, value in annotations.items() if key not in _NOT_COPIED}

    def _set_revision(self, replica_set: Object, revision: int) -> None:
        annotations = replica_set["metadata"]["annotations"] | self._copied() | {REVISION: str(revision)}
        self._change(resources.REPLICASETS, replica_set, {"metadata": {"annotations": annotations}})

    def _annotate(self, newest: Object) -> None:
        """The Deployment has the newest revision's number, that one the Deployment's annotations."""
        revision = newest["metadata"]["annotations"][REVISION]
        if self.metadata.get("annotations", {}).get(REVISION) != revision:
            self._change(resources.DEPLOYMENTS, self.deployment, {"metadata": {"annotations": {REVISION: revision}}})
        present = newest["metadata"]["annotations"]
        if present != present | self._copied() | {REVISION: revision}:  # what the Deployment lost stays here
            annotations = present | self._copied() | {REVISION: revision}
            self._change(resources.REPLICASETS, newest, {"metadata": {"annotations": annotations}})

    def _forget(self, old: list[Object]) -> None:
        """Keeps `revisionHistoryLimit` old revisions."""
        surplus = len(old) - self.spec["revisionHistoryLimit"]
        by_revision = sorted(old, key=_revision)
        for replica_set in by_revision[: max(0, surplus)]:
            self.store.delete(resources.REPLICASETS, self.namespace, replica_set["metadata"]["name"])

    def _pods(self, replica_set: Object) -> list[Object]:
        pods = self.store.list(resources.PODS, self.namespace, expression(replica_set["spec"]["selector"]))
        return [pod for pod in pods if _owned_by(pod, replica_set)]

    def _scale(self, replica_set: Object, replicas: int) -> None:
        pods = self._pods(replica_set)
        for pod in pods[replicas:]:
            self.store.delete(resources.PODS, self.namespace, pod["metadata"]["name"])
        template = replica_set["spec"]["template"]
        for _ in range(replicas - len(pods)):
            metadata = {**template["metadata"], "generateName": f"{replica_set['metadata']['name']}-"}
            metadata["ownerReferences"] = [_owner(replica_set)]
            body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}
            self.store.create(resources.PODS, self.namespace, body, manager=_MANAGER)
        if replica_set["spec"]["replicas"] != replicas:
            self._change(resources.REPLICASETS, replica_set, {"spec": {"replicas": replicas}})
            up = "up" if replicas > replica_set["spec"]["replicas"] else "down"
            name = replica_set["metadata"]["name"]
            message = f"Scaled {up} replica set {name} from {replica_set['spec']['replicas']} to {replicas}"
            self.state.event(self.deployment, "ScalingReplicaSet", message, source="deployment-controller")
        ready = sum(map(is_ready, pods[:replicas]))
        status = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready}
        self._change(resources.REPLICASETS, replica_set, {"status": status}, manager=_STATUS)

    def _write_status(self, fresh: list[Object], old: list[Object]) -> None:
        ready = sum(map(is_ready, fresh + old))
        wanted = self.spec["replicas"]
        counts = {
            "observedGeneration": self.metadata["generation"],
            "replicas": len(fresh) + len(old),
            "updatedReplicas": len(fresh),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }
        complete = sum(map(is_ready, fresh)) >= wanted and not old
        available = _condition("Available", ready >= wanted, "MinimumReplicasAvailable", "MinimumReplicasUnavailable")
        conditions = [self._since(available), self._progress(complete)]
        status = {key: value for key, value in counts.items() if value} | {"conditions": conditions}
        self._change(resources.DEPLOYMENTS, self.deployment, {"status": status}, manager=_STATUS)

    def _progress(self, complete: bool) -> dict[str, str]:
        """The Progressing condition; its time starts anew with every new generation of the template."""
        before = self._before("Progressing")
        if complete:
            return self._since(_condition("Progressing", True, "NewReplicaSetAvailable"))
        template = hashlib.sha256(json.dumps(self.spec["template"], sort_keys=True).encode()).hexdigest()[:8]
        message = f"ReplicaSet of template {template} is progressing."
        if before.get("message") != message and not (
            before.get("reason") == "ProgressDeadlineExceeded" and template in before["message"]
        ):
            fresh = _condition("Progressing", True, "ReplicaSetUpdated")
            return fresh | {"message": message, "lastUpdateTime": now(), "lastTransitionTime": now()}
        if before["reason"] != "ProgressDeadlineExceeded":
            if seconds_since(before["lastUpdateTime"]) < self.spec["progressDeadlineSeconds"]:
                return before
            late = _condition("Progressing", False, "", "ProgressDeadlineExceeded")
            return late | {
                "message": f"ReplicaSet of template {template} has timed out progressing.",
                "lastUpdateTime": now(),
                "lastTransitionTime": now(),
            }
        return before

    def _before(self, kind: str) -> dict[str, str]:
        conditions = self.deployment.get("status", {}).get("conditions", [])
        found: dict[str, str] = next((c for c in conditions if c["type"] == kind), {})
        return found

    def _since(self, condition: dict[str, str]) -> dict[str, str]:
        before = self._before(condition["type"])
        if {key: before.get(key) for key in ("status", "reason")} == {
            key: condition[key] for key in ("status", "reason")
        }:
            return before
        return condition | {"lastUpdateTime": now(), "lastTransitionTime": now()}

    def _change(self, resource: Any, body: Object, change: Object, *, manager: Manager = _MANAGER) -> None:
        def changed(live: Object) -> Object:
            if "status" in change:
                return {**live, "status": change["status"]}
            for section, values in change.items():
                for key, value in values.items():
                    is_map = key == "annotations" and resource is resources.DEPLOYMENTS
                    live[section][key] = {**live[section].get(key, {}), **value} if is_map else value
            return live

        metadata = body["metadata"]
        if "status" in change and change["status"] == body.get("status"):
            return
        self.store.change(resource, metadata["namespace"], metadata["name"], changed, manager=manager)


def _revision(replica_set: Object) -> int:
    return int(replica_set["metadata"]["annotations"][REVISION])


def _condition(kind: str, status: bool, reason: str, otherwise: str = "") -> dict[str, str]:
    reason = reason if status else otherwise
    return {"type": kind, "status": str(status), "reason": reason, "message": reason}


def _owner(body: Object) -> dict[str, Any]:
    metadata = body["metadata"]
    names = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {**names, "controller": True, "blockOwnerDeletion": True}


def _owned_by(body: Object, owner: Object) -> bool:
    return any(ref["uid"] == owner["metadata"]["uid"] for ref in body["metadata"].get("ownerReferences", []))

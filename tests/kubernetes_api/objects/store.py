"""The objects, their versions, and every change that watchers may still ask for."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.kubernetes_api.errors import ApiError, not_found
from tests.kubernetes_api.objects import defaults, managers, resources, schemas
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.resources import Resource
from tests.kubernetes_api.objects.selectors import fields_match, labels_match
from tests.kubernetes_api.objects.times import now

Object = dict[str, Any]
Key = tuple[Resource, str, str]
_NEEDS_VERSION = ("Lease",)
"""Kinds that cannot be replaced whatever their version (`AllowUnconditionalUpdate` of their strategy is false)."""


@dataclass(frozen=True)
class Change:
    """One step of the history."""

    version: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    resource: Resource
    body: Object


class Store:
    """All state of the cluster; it outlives a restart of the server."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[Key, Object] = {}
        self.history: list[Change] = []
        self.oldest = 0
        """Versions before this one are compacted."""
        self._version = 100

    @property
    def version(self) -> int:
        """The newest version."""
        return self._version

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Raises:
        ApiError: 404.
        """
        with self.lock:
            found = self.objects.get((resource, namespace, name))
            if found is None:
                raise not_found(resource.plural, name)
            return copy.deepcopy(found)

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        with self.lock:
            return copy.deepcopy(self.objects.get((resource, namespace, name)))

    def list(self, resource: Resource, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        """The objects of a namespace, or of all, in the order of their names."""
        with self.lock:
            found = [body for (r, ns, _), body in self.objects.items() if r is resource and namespace in ("", ns)]
            found = [body for body in found if selected(body, labels, fields)]
            return copy.deepcopy(
                sorted(found, key=lambda body: (body["metadata"].get("namespace", ""), body["metadata"]["name"]))
            )

    def create(
        self, resource: Resource, namespace: str, body: Object, *, manager: Manager, dry_run: bool = False
    ) -> Object:
        """Raises:
        ApiError: 409 where it exists, 400 or 422 where it is invalid, 404 without its namespace.
        """
        with self.lock:
            name = body["metadata"].get("name") or body["metadata"]["generateName"] + uuid.uuid4().hex[:5]
            if (resource, namespace, name) in self.objects:
                raise ApiError(409, f'{resource.plural} "{name}" already exists', reason="AlreadyExists")
            body = {"apiVersion": resource.api_version, "kind": resource.kind} | copy.deepcopy(body)
            body["metadata"] |= {"name": name} | ({"namespace": namespace} if resource.namespaced else {})
            body["metadata"].pop("resourceVersion", None)
            if "status" in resource.subresources:
                body.pop("status", None)
            self._prepare(resource, None, body)
            owned = managers.update(None, body, manager=manager, schema=schemas.of_resource(resource))
            return self._put(resource, None, body, owned, dry_run=dry_run)

    def change(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        transform: Callable[[Object], Object],
        *,
        manager: Manager,
        dry_run: bool = False,
    ) -> Object:
        """Replaces an object by what `transform` makes of it; on `manager.subresource` only that part changes.

        Raises:
            ApiError: 409 where the result carries another version than the newest, 404, 400 or 422.
        """
        with self.lock:
            live = self.get(resource, namespace, name)
            body = transform(copy.deepcopy(live))
            sent = body.get("metadata", {}).get("resourceVersion")
            if not sent and resource.kind in _NEEDS_VERSION:
                raise ApiError(
                    422,
                    f'{resource.kind} "{name}" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be '
                    "specified for an update",
                )
            if sent not in (None, "", live["metadata"]["resourceVersion"]):
                raise ApiError(
                    409,
                    f'Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            body = _only_subresource(resource, live, body, manager.subresource)
            self._prepare(resource, live, body)
            owned = managers.update(live, body, manager=manager, schema=schemas.of_resource(resource))
            return self._put(resource, live, body, owned, dry_run=dry_run)

    def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        applied: Object,
        *,
        manager: Manager,
        force: bool,
        dry_run: bool,
    ) -> tuple[Object, bool]:
        """Server-side apply; also whether the object is new.

        Raises:
            ApiError: 409 for fields of other managers, 400 or 422.
        """
        with self.lock:
            live = self.find(resource, namespace, name)
            applied = schemas.without_null(applied)
            metadata = applied.setdefault("metadata", {})
            if metadata.get("managedFields"):
                raise ApiError(400, "metadata.managedFields must be nil")
            sent = metadata.pop("resourceVersion", None)
            if sent and (live is None or sent != live["metadata"]["resourceVersion"]):
                raise ApiError(
                    409, f'Operation cannot be fulfilled on {resource.plural} "{name}": the object has been modified'
                )
            schemas.validate(resource, {"apiVersion": resource.api_version, "kind": resource.kind} | applied)
            schema = schemas.of_resource(resource)
            body, owned = managers.apply(live, applied, manager=manager, force=force, schema=schema)
            body["metadata"] |= {"name": name} | ({"namespace": namespace} if resource.namespaced else {})
            body = _only_subresource(resource, live, body, manager.subresource) if live else body
            self._prepare(resource, live, body)
            return self._put(resource, live, body, owned, dry_run=dry_run), live is None

    def delete(self, resource: Resource, namespace: str, name: str, *, orphan: bool = False) -> Object:
        """Removes an object, and what it owns.

        Raises:
            ApiError: 404.
        """
        with self.lock:
            body = self.get(resource, namespace, name)
            del self.objects[(resource, namespace, name)]
            self._record("DELETED", resource, body)
            uid = body["metadata"]["uid"]
            for (owned_resource, owned_namespace, owned_name), dependent in list(self.objects.items()):
                owners = dependent["metadata"].get("ownerReferences", [])
                if not any(owner["uid"] == uid for owner in owners):
                    continue
                if orphan:
                    dependent["metadata"]["ownerReferences"] = [o for o in owners if o["uid"] != uid]
                    self._record("MODIFIED", owned_resource, dependent)
                elif (owned_resource, owned_namespace, owned_name) in self.objects:
                    self.delete(owned_resource, owned_namespace, owned_name)
            return body

    def changes_since(self, version: int, resource: Resource) -> list[Change]:
        """Raises:
        ApiError: 410, where the history does not reach back that far.
        """
        with self.lock:
            if version < self.oldest:
                raise ApiError(410, f"too old resource version: {version} ({self.oldest})", reason="Expired")
            return [change for change in self.history if change.version > version and change.resource is resource]

    def forget_history(self) -> None:
        """Compacts: whoever watches from an older version than the newest is told 410 Gone."""
        with self.lock:
            self._version += 1
            self.oldest, self.history = self._version, []

    def _prepare(self, resource: Resource, live: Object | None, body: Object) -> None:
        if resource.namespaced and (resources.NAMESPACES, "", body["metadata"]["namespace"]) not in self.objects:
            raise not_found("namespaces", body["metadata"]["namespace"])
        cleaned = schemas.without_null(body)
        body.clear()
        body.update(cleaned)
        schemas.validate(resource, body)
        defaults.fill_in(body, cluster_ip=f"10.96.{self._version // 256 % 256}.{self._version % 256}")
        defaults.check(live, body)

    def _put(
        self, resource: Resource, live: Object | None, body: Object, owned: managers.Owned, *, dry_run: bool
    ) -> Object:
        metadata = body["metadata"]
        if live is None:
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if "spec" in body:
                metadata["generation"] = 1
        else:
            kept = ("uid", "creationTimestamp", "generation", "resourceVersion")
            metadata |= {name: live["metadata"][name] for name in kept if name in live["metadata"]}
            if live.get("spec") != body.get("spec"):
                metadata["generation"] = live["metadata"].get("generation", 0) + 1
        managers.write(body, owned)
        if dry_run or (live is not None and _is_same(live, body)):
            return body
        self._record("ADDED" if live is None else "MODIFIED", resource, body)
        self.objects[(resource, metadata.get("namespace", ""), metadata["name"])] = body
        return copy.deepcopy(body)

    def _record(self, kind: str, resource: Resource, body: Object) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.history.append(Change(self._version, kind, resource, copy.deepcopy(body)))


def selected(body: Object, labels: str, fields: str) -> bool:
    """Whether an object fits both selectors."""
    return labels_match(labels, body["metadata"].get("labels", {})) and fields_match(fields, body)


def _is_same(live: Object, body: Object) -> bool:
    """A write that changes nothing makes no new version."""
    plain = [{**o, "metadata": {k: v for k, v in o["metadata"].items() if k != "managedFields"}} for o in (live, body)]
    return plain[0] == plain[1] and managers.read(live) == managers.read(body)


def _only_subresource(resource: Resource, live: Object, body: Object, subresource: str) -> Object:
    if subresource == "status":
        return {**live, "status": body.get("status", {}), "metadata": live["metadata"] | _labels_of(live)}
    if subresource == "" and "status" in resource.subresources and "status" in live:
        return {**body, "status": live["status"]}
    return body


def _labels_of(live: Object) -> Object:
    return {key: live["metadata"][key] for key in ("labels", "annotations") if key in live["metadata"]}

"""The HTTP face of the store, as an ASGI application."""

from __future__ import annotations

import json
import logging
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.kubernetes_api.errors import ApiError, UnknownPathError
from tests.kubernetes_api.faults import Seen
from tests.kubernetes_api.http import openapi, streams
from tests.kubernetes_api.http.targets import Target, flag
from tests.kubernetes_api.objects import resources, schemas
from tests.kubernetes_api.objects.managers import Manager
from tests.kubernetes_api.objects.patches import json_patch, merge_patch, strategic_patch
from tests.kubernetes_api.objects.resources import Resource
from tests.kubernetes_api.objects.store import Object
from tests.kubernetes_api.state import ClusterState

log = logging.getLogger(__name__)

_APPLY = "application/apply-patch+yaml"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_app(state: ClusterState) -> Starlette:
    """The API server over a cluster's state."""

    async def answer(request: Request) -> Response:
        return await _answer(request, state)

    return Starlette(
        routes=[Route("/{path:path}", answer, methods=_METHODS)],
        exception_handlers={ApiError: _refused, UnknownPathError: _unknown, Exception: _failed},
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.status(), status_code=error.code, headers=headers)


async def _unknown(_: Request, error: Exception) -> Response:
    return PlainTextResponse(UnknownPathError.content, status_code=404)


async def _failed(request: Request, error: Exception) -> Response:
    """A mistake of this server: pytest shows the log of a failed test."""
    log.error("%s %s", request.method, request.url, exc_info=error)
    return JSONResponse(ApiError(500, repr(error)).status(), status_code=500)


async def _answer(request: Request, state: ClusterState) -> Response:
    document = _document(request.url.path)
    if document is not None:
        return JSONResponse(document)
    target = Target.parse(request)
    raw = await request.body()
    body = yaml.safe_load(raw) if raw and target.subresource != "proxy" else None
    manager = request.query_params.get("fieldManager") or request.headers.get("user-agent", "unknown").split("/")[0]
    state.faults.check(
        Seen(target.verb, target.resource.group, target.rbac_name, target.namespace, target.name, manager, body)
    )
    if target.subresource == "proxy":
        return await streams.proxied(request, target, state, raw)
    if target.subresource == "log":
        return streams.log_of(request, target, state)
    if target.verb == "watch":
        return streams.watch(request, target, state)
    if target.subresource == "scale":
        return _scale(request, target, body, state, manager)
    return _write_or_read(request, target, body, state, manager)


def _document(path: str) -> dict[str, Any] | None:
    path = path.rstrip("/")
    parts = path.strip("/").split("/")
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return resources.group_list()
    if path == "/version":
        return {"major": "1", "minor": "32", "gitVersion": f"v{schemas.VERSION}", "platform": "linux/amd64"}
    if path.startswith("/openapi/v3"):
        return openapi.document(path)
    if parts[0] == "api" and len(parts) == 2:
        return resources.resource_list("", parts[1])
    if parts[0] == "apis" and len(parts) == 3:
        return resources.resource_list(parts[1], parts[2])
    if parts[0] == "apis" and len(parts) == 2:
        return next(
            (
                g | {"kind": "APIGroup", "apiVersion": "v1"}
                for g in resources.group_list()["groups"]
                if g["name"] == parts[1]
            ),
            None,
        )
    return None


def _write_or_read(request: Request, target: Target, body: Any, state: ClusterState, manager_name: str) -> Response:
    query, store, resource = request.query_params, state.store, target.resource
    manager = Manager(manager_name, "Update", resource.api_version, target.subresource)
    dry_run = query.get("dryRun") == "All"
    place = (resource, target.namespace, target.name)
    match target.verb:
        case "get":
            return JSONResponse(store.get(*place))
        case "list":
            with store.lock:
                found = store.list(
                    resource, target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
                )
                return JSONResponse(_list_of(resource, found, store.version))
        case "create":
            return JSONResponse(store.create(resource, target.namespace, body, manager=manager, dry_run=dry_run), 201)
        case "update":
            return JSONResponse(store.change(*place, lambda _: body, manager=manager, dry_run=dry_run))
        case "patch":
            return _patch(request, target, body, state, manager, dry_run=dry_run)
        case "delete":
            orphan = "Orphan" in (query.get("propagationPolicy"), (body or {}).get("propagationPolicy"))
            wanted = (body or {}).get("preconditions") or {}
            live = store.get(*place)
            if any(live["metadata"].get(key) != value for key, value in wanted.items() if value):
                raise ApiError(409, f'Operation cannot be fulfilled on {resource.plural} "{target.name}": precondition')
            gone = live if dry_run else store.delete(*place, orphan=orphan)
            details = {"name": target.name, "kind": resource.plural, "uid": gone["metadata"]["uid"]}
            return JSONResponse({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details})
        case _:  # deletecollection
            found = store.list(
                resource, target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", "")
            )
            for item in found:
                store.delete(resource, item["metadata"].get("namespace", ""), item["metadata"]["name"])
            return JSONResponse(_list_of(resource, found, store.version))


def _patch(
    request: Request, target: Target, body: Any, state: ClusterState, manager: Manager, *, dry_run: bool
) -> Response:
    kind, query, resource = request.headers.get("content-type", ""), request.query_params, target.resource
    place = (resource, target.namespace, target.name)
    if kind == _APPLY:
        if "fieldManager" not in query:
            raise ApiError(
                400, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
            )
        applier = Manager(manager.name, "Apply", resource.api_version, target.subresource)
        force = flag(request, "force")
        result, is_new = state.store.apply(*place, body, manager=applier, force=force, dry_run=dry_run)
        return JSONResponse(result, 201 if is_new else 200)
    patched = state.store.change(
        *place, lambda live: _patched(kind, live, body, resource), manager=manager, dry_run=dry_run
    )
    return JSONResponse(patched)


def _patched(kind: str, live: Object, patch: Any, resource: Resource) -> Object:
    match kind:
        case "application/merge-patch+json":
            changed = merge_patch(live, patch)
        case "application/strategic-merge-patch+json" if resource.group != "trainer.kubeflow.org":
            changed = strategic_patch(live, patch, schemas.of_resource(resource))
        case "application/json-patch+json":
            changed = json_patch(live, patch)
        case _:
            raise ApiError(415, f"the body of the request was in an unknown format: {kind}")
    result: Object = changed
    return result


def _scale(request: Request, target: Target, body: Any, state: ClusterState, manager_name: str) -> Response:
    resource, store = target.resource, state.store
    place = (resource, target.namespace, target.name)
    if target.verb != "get":
        manager = Manager(manager_name, "Update", resource.api_version, "scale")

        def scaled(live: Object) -> Object:
            kind = request.headers.get("content-type", "")
            wanted = _patched(kind, _scale_of(live), body, resource) if target.verb == "patch" else body
            live["spec"]["replicas"] = wanted["spec"]["replicas"]
            if not json.dumps(wanted["spec"]["replicas"]).isdecimal():
                raise ApiError(422, f"spec.replicas: Invalid value: {wanted['spec']['replicas']!r}")
            return live

        store.change(*place, scaled, manager=manager)
    return JSONResponse(_scale_of(store.get(*place)))


def _scale_of(live: Object) -> Object:
    metadata = {
        key: live["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    selector = ",".join(f"{key}={value}" for key, value in live["spec"]["selector"]["matchLabels"].items())
    status = {"replicas": live.get("status", {}).get("replicas", 0), "selector": selector}
    spec = {"replicas": live["spec"].get("replicas", 1)}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def _list_of(resource: Resource, items: list[Object], version: int) -> Object:
    header = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
    return {**header, "metadata": {"resourceVersion": str(version)}, "items": items}

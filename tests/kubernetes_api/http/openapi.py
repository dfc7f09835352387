"""As much of OpenAPI v3 as kubectl asks for: which writes take `fieldValidation`, and the kinds' schemas."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tests.kubernetes_api.objects import resources, schemas
from tests.kubernetes_api.objects.resources import RESOURCES, Resource

_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation", "force")
]


@cache
def document(path: str) -> dict[str, Any] | None:
    """What `/openapi/v3` and the paths below it answer."""
    rest = path.removeprefix("/openapi/v3").strip("/")
    roots = sorted({resource.root.strip("/") for resource in RESOURCES})
    if not rest:
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
    found = [resource for resource in RESOURCES if resource.root.strip("/") == rest]
    if not found:
        return None
    paths: dict[str, Any] = {}
    for resource in found:
        paths |= _paths(resource)
    info = {"title": "Kubernetes", "version": schemas.VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": _schemas(found)}}


def _paths(resource: Resource) -> dict[str, Any]:
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    operation = {"parameters": _PARAMETERS, "responses": {}, "x-kubernetes-group-version-kind": gvk}
    collection = resource.path("{namespace}" if resource.namespaced else None)
    return {collection: {"post": operation}, f"{collection}/{{name}}": {"patch": operation, "put": operation}}


def _schemas(found: list[Resource]) -> dict[str, Any]:
    """The kinds, and what they refer to."""
    wanted, done = {json.dumps(_name(r)): schemas.of_resource(r) for r in found}, {}
    queue = [(json.loads(name), schema) for name, schema in wanted.items()]
    while queue:
        name, schema = queue.pop()
        if name not in done:
            text = json.dumps(schema)
            done[name] = json.loads(text.replace("#/$defs/", "#/components/schemas/"))
            known = schemas.definitions()
            queue += [(ref, known[ref]) for ref in known if f'"#/$defs/{ref}"' in text and ref not in done]
    return done


def _name(resource: Resource) -> str:
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    for name, definition in schemas.definitions().items():
        if gvk in definition.get("x-kubernetes-group-version-kind", ()):
            return name
    return f"io.{resource.group}.{resource.version}.{resource.kind}"


__all__ = ["document", "resources"]

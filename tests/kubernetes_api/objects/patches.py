"""The patches that the API server takes besides server-side apply."""

from __future__ import annotations

import copy
from typing import Any

from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.objects import schemas
from tests.kubernetes_api.objects.schemas import Schema

_DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result


def strategic_patch(target: Any, patch: Any, schema: Schema) -> Any:
    """Kubernetes' own: lists with a merge key merge by it, and `$patch` directives delete or replace."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {name: value for name, value in result.items() if name in patch["$retainKeys"]}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            key = name.partition("/")[2]
            result[key] = [item for item in result.get(key, []) if item not in value]
        elif name.startswith(_DIRECTIVES):
            continue
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = _strategic_field(result.get(name), value, schemas.field(schema, name))
    return result


def _strategic_field(target: Any, value: Any, schema: Schema) -> Any:
    if not isinstance(value, list):
        return strategic_patch(target, value, schema)
    key = schema.get("x-kubernetes-patch-merge-key")
    if "merge" not in schema.get("x-kubernetes-patch-strategy", ""):
        return value
    result = list(target or [])
    if key is None:
        return result + [item for item in value if item not in result]
    if any(item.get("$patch") == "replace" for item in value):
        return [item for item in value if "$patch" not in item]
    for item in value:
        index = next((i for i, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            result = [old for old in result if old.get(key) != item.get(key)]
        elif index is None:
            result.append(strategic_patch({}, item, schemas.items(schema)))
        else:
            result[index] = strategic_patch(result[index], item, schemas.items(schema))
    return result


def json_patch(target: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902: add, remove, replace and test."""
    result = copy.deepcopy(target)
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        try:
            _json_operation(result, operation, parts)
        except (KeyError, IndexError, ValueError) as error:
            raise ApiError(422, f"the patch {operation} does not fit: {error!r}") from error
    return result


def _json_operation(document: Any, operation: dict[str, Any], parts: list[str]) -> None:
    parent = document
    for part in parts[:-1]:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    last = parts[-1]
    key: Any = (len(parent) if last == "-" else int(last)) if isinstance(parent, list) else last
    match operation["op"]:
        case "add" if isinstance(parent, list):
            parent.insert(key, operation["value"])
        case "add":
            parent[key] = operation["value"]
        case "replace":
            parent[key]  # has to exist
            parent[key] = operation["value"]
        case "remove":
            del parent[key]
        case "test":
            if parent[key] != operation["value"]:
                raise ValueError(f"{operation['path']} is {parent[key]!r}")
        case other:
            raise ValueError(f"unknown operation {other}")

"""Field sets as `managedFields` holds them: which fields of an object a manager set.

A field is a path of elements in the spelling of FieldsV1: `f:<name>`, `k:<keys of a list's item as JSON>`, `v:<value of
a set as JSON>` (kubernetes-sigs/structured-merge-diff).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.kubernetes_api.objects import schemas
from tests.kubernetes_api.objects.schemas import Schema

FieldPath = tuple[str, ...]
_KEY_DEFAULTS = {"protocol": "TCP"}
_ITEM = object()
_IDENTITY = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
)
_NEVER_OWNED = {("f:apiVersion",), ("f:kind",), ("f:metadata",), *(("f:metadata", f"f:{name}") for name in _IDENTITY)}


def item_element(schema: Schema, item: Any) -> str:
    """The path element of an item of a list that merges."""
    if schema["x-kubernetes-list-type"] == "set":
        return "v:" + json.dumps(item)
    names = schema["x-kubernetes-list-map-keys"]
    keys = {name: item.get(name, _KEY_DEFAULTS.get(name)) for name in sorted(names)}
    return "k:" + json.dumps({k: v for k, v in keys.items() if v is not None}, separators=(",", ":"))


def merges(schema: Schema) -> bool:
    """Whether the items of this list have owners of their own."""
    return schema.get("x-kubernetes-list-type") in ("map", "set")


def leaves(value: Any, schema: Schema, path: FieldPath = ()) -> dict[FieldPath, Any]:
    """Every field of an object that can have an owner, with its value; of a list's item, also the item itself."""
    if isinstance(value, dict) and value and not schemas.is_atomic(schema):
        found: dict[FieldPath, Any] = {}
        for name, inner in value.items():
            below = (*path, f"f:{name}")
            if below not in _NEVER_OWNED or below == ("f:metadata",):
                found |= leaves(inner, schemas.field(schema, name), below)
        return found
    if isinstance(value, list) and value and merges(schema):
        found = {}
        for item in value:
            below = (*path, item_element(schema, item))
            found[below] = _ITEM
            if isinstance(item, dict):
                found |= leaves(item, schemas.items(schema), below)
        return found
    return {path: value} if value is not None else {}


def encode(paths: Iterable[FieldPath]) -> dict[str, Any]:
    """FieldsV1."""
    tree: dict[str, Any] = {}
    members = set(paths)
    for path in sorted(members):
        node = tree
        for depth, element in enumerate(path):
            node = node.setdefault(element, {})
            if path[: depth + 1] in members and depth + 1 < len(path):
                node["."] = {}
    return tree


def decode(tree: dict[str, Any], path: FieldPath = ()) -> set[FieldPath]:
    """The paths of FieldsV1."""
    if not tree:
        return {path} if path else set()
    found: set[FieldPath] = set()
    for element, inner in tree.items():
        found |= {path} if element == "." else decode(inner, (*path, element))
    return found


def readable(path: FieldPath) -> str:
    """A path as error messages of the server spell it."""
    parts = []
    for element in path:
        kind, _, text = element.partition(":")
        if kind == "f":
            parts.append(f".{text}")
        elif kind == "v":
            parts.append(f"[={text}]")
        else:
            keys = json.loads(text)
            parts.append("[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]")
    return "".join(parts)


def merged(live: Any, applied: Any, schema: Schema) -> Any:
    """`live` with everything that `applied` says; lists that merge do so by their keys."""
    if isinstance(live, dict) and isinstance(applied, dict) and not schemas.is_atomic(schema):
        result = dict(live)
        for name, value in applied.items():
            result[name] = merged(live.get(name), value, schemas.field(schema, name))
        return result
    if isinstance(live, list) and isinstance(applied, list) and merges(schema):
        current = {item_element(schema, item): item for item in live}
        for item in applied:
            element = item_element(schema, item)
            current[element] = merged(current.get(element), item, schemas.items(schema))
        return list(current.values())
    return applied


def without(value: Any, removed: set[FieldPath], schema: Schema, path: FieldPath = ()) -> Any:
    """`value` without the fields in `removed`; null where nothing of an object or a list is left."""
    if isinstance(value, dict) and value and not schemas.is_atomic(schema):
        kept = {}
        for name, inner in value.items():
            below = (*path, f"f:{name}")
            left = None if below in removed else without(inner, removed, schemas.field(schema, name), below)
            if left is not None:
                kept[name] = left
        return kept or None
    if isinstance(value, list) and value and merges(schema):
        items = []
        for item in value:
            below = (*path, item_element(schema, item))
            if below not in removed:
                items.append(without(item, removed, schemas.items(schema), below))
        return items or None
    return value

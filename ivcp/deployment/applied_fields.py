"""What one field manager applied, read back from an object's `managedFields`.

The same as client-go's `Extract…` functions: the fields that the manager owns through server-side apply, with the
values that they have now. The format of the field sets is that of kubernetes-sigs/structured-merge-diff: `f:<name>` for
a field, `k:<keys as JSON>` for the item of a list, `v:<value as JSON>` for a value of a set, `.` for the thing itself.
"""

from __future__ import annotations

import json
from typing import Any

from ivcp.deployment.predictor_manifests import Manifest


def applied_by(manager: str, live: Manifest, *, planned: Manifest | None = None) -> Manifest | None:
    """The configuration that `manager` applied last, to be applied again; null where it owns nothing of the object.

    With `planned`, the result of a dry run of the next application, also the present values of the fields that this one
    would take over from their owners.
    """
    fields = _union(_fields(manager, live), _fields(manager, planned) if planned else None)
    if fields is None:
        return None
    applied: Manifest = _owned(live, fields)
    identity = {key: live["metadata"][key] for key in ("name", "namespace")}
    applied["metadata"] = applied.get("metadata", {}) | identity
    return {"apiVersion": live["apiVersion"], "kind": live["kind"]} | applied


def _fields(manager: str, body: Manifest) -> dict[str, Any] | None:
    entries = body["metadata"].get("managedFields", [])
    return next((e["fieldsV1"] for e in entries if (e["manager"], e["operation"]) == (manager, "Apply")), None)


def _union(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any] | None:
    if one is None or other is None:
        return other if one is None else one
    if not one or not other:
        return {}  # the whole value
    return {name: _union(one.get(name), other.get(name)) for name in one | other}


def _owned(value: Any, fields: dict[str, Any]) -> Any:
    below = {element: inner for element, inner in fields.items() if element != "."}
    if not below:
        return value
    if isinstance(value, list):
        items = [(item, _fields_of(item, below)) for item in value]
        return [_owned(item, found) for item, found in items if found is not None]
    chosen = {element.removeprefix("f:"): inner for element, inner in below.items()}
    return {name: _owned(value[name], inner) for name, inner in chosen.items() if name in value}


def _fields_of(item: Any, elements: dict[str, Any]) -> dict[str, Any] | None:
    """The field set of a list's item; null where the manager does not own it."""
    for element, fields in elements.items():
        kind, _, text = element.partition(":")
        wanted = json.loads(text)
        if kind == "v" and item == wanted:
            return {}
        if kind == "k" and all(item.get(key) == value for key, value in wanted.items()):
            found: dict[str, Any] = fields
            return found
    return None

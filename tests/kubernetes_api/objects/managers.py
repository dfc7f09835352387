"""Who owns which field: server-side apply, and what other writes do to ownership."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from tests.kubernetes_api.errors import ApiError
from tests.kubernetes_api.objects import fields
from tests.kubernetes_api.objects.fields import FieldPath
from tests.kubernetes_api.objects.schemas import Schema
from tests.kubernetes_api.objects.times import now


@dataclass(frozen=True)
class Manager:
    """One entry of `managedFields`."""

    name: str
    operation: str
    """Apply or Update."""
    api_version: str
    subresource: str = ""
    time: str = field(default_factory=now, compare=False)


Owned = dict[Manager, set[FieldPath]]


def read(body: dict[str, Any]) -> Owned:
    """The managers of an object."""
    return {
        Manager(
            name=entry.get("manager", ""),
            operation=entry.get("operation", "Update"),
            api_version=entry.get("apiVersion", ""),
            subresource=entry.get("subresource", ""),
            time=entry.get("time", now()),
        ): fields.decode(entry.get("fieldsV1", {}))
        for entry in body.get("metadata", {}).get("managedFields", [])
    }


def write(body: dict[str, Any], owned: Owned) -> None:
    """Writes the managers into an object."""
    entries = []
    for manager, paths in owned.items():
        if paths:
            entry = {"manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version}
            entry |= {"time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": fields.encode(paths)}
            entries.append(entry | ({"subresource": manager.subresource} if manager.subresource else {}))
    body["metadata"]["managedFields"] = entries


def apply(
    live: dict[str, Any] | None, applied: dict[str, Any], *, manager: Manager, force: bool, schema: Schema
) -> tuple[dict[str, Any], Owned]:
    """The object and its owners after a server-side apply.

    Raises:
        ApiError: 409 that names every conflicting field and its owner.
    """
    owned = read(live) if live else {}
    if live and not owned:
        owned[Manager("before-first-apply", "Update", manager.api_version)] = set(fields.leaves(live, schema))
    former = owned.pop(manager, set())
    wanted = set(fields.leaves(applied, schema))
    result = fields.merged(copy.deepcopy(live), applied, schema) if live else copy.deepcopy(applied)
    kept = {path[:length] for paths in owned.values() for path in paths for length in range(1, len(path) + 1)}
    mine = {path[:length] for path in wanted for length in range(1, len(path) + 1)}
    result = fields.without(result, former - mine - kept, schema)
    _settle(live or {}, result, owned, schema, force=force, operation="Apply")
    owned[manager] = wanted
    return result, owned


def update(live: dict[str, Any] | None, result: dict[str, Any], *, manager: Manager, schema: Schema) -> Owned:
    """The owners after any other write: the writer owns what it changed."""
    owned = read(live) if live else {}
    if live and "managedFields" in result.get("metadata", {}):
        owned = {m: p for m, p in owned.items() if m in read(result)}  # a client may drop managers
    changed = _settle(live or {}, result, owned, schema, force=True, operation="Update")
    if changed:
        mine = owned.pop(manager, set())
        owned[replace(manager, time=now())] = (mine | changed) & set(fields.leaves(result, schema))
    return owned


def _settle(
    before: dict[str, Any], after: dict[str, Any], owned: Owned, schema: Schema, *, force: bool, operation: str
) -> set[FieldPath]:
    """Takes fields that changed or went from their owners; without `force` that is a conflict."""
    old, new = fields.leaves(before, schema), fields.leaves(after, schema)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    conflicts = {manager: paths & changed for manager, paths in owned.items() if paths & changed}
    if conflicts and not force:
        raise _conflict(conflicts)
    for manager in list(owned):
        owned[manager] = {path for path in owned[manager] if path in new and path not in changed}
    return changed


def _conflict(conflicts: Owned) -> ApiError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager.name}"'
            + (f' with subresource "{manager.subresource}"' if manager.subresource else "")
            + f" using {manager.api_version}",
            "field": fields.readable(path),
        }
        for manager, paths in conflicts.items()
        for path in sorted(paths)
    ]
    told = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    plural = "s" if len(causes) > 1 else ""
    return ApiError(409, f"Apply failed with {len(causes)} conflict{plural}: {told}", causes=causes)

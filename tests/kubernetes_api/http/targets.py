"""What a request is about."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from tests.kubernetes_api.errors import ApiError, UnknownPathError
from tests.kubernetes_api.objects import resources
from tests.kubernetes_api.objects.resources import Resource

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Target:
    """A collection, an object or a subresource, and what is done with it."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    rest: str = ""
    """Of the path, behind `proxy`."""

    @property
    def rbac_name(self) -> str:
        """As roles name it."""
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural

    @classmethod
    def parse(cls, request: Request) -> Target:
        """Raises:
        UnknownPathError: there is no such kind.
        """
        parts = request.url.path.strip("/").split("/")
        if parts[0] == "api" and len(parts) > 2:
            group, version, parts = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, parts = parts[1], parts[2], parts[3:]
        else:
            raise UnknownPathError
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        resource = resources.by_path(group, version, parts[0])
        name = parts[1] if len(parts) > 1 else ""
        subresource, rest = (parts[2], "/".join(parts[3:])) if len(parts) > 2 else ("", "")
        if resource is None or (subresource and subresource not in resource.subresources):
            raise UnknownPathError
        verb = _verb(request, name=name, subresource=subresource)
        return cls(verb, resource, namespace, name, subresource, rest)


def _verb(request: Request, *, name: str, subresource: str) -> str:
    if request.method == "GET":
        if flag(request, "watch"):
            return "watch"
        return "get" if name else "list"
    if request.method == "DELETE" and not name:
        return "deletecollection"
    if request.method == "POST" and name and subresource != "proxy":
        raise ApiError(405, "POST on an object")
    return _VERBS[request.method]


def flag(request: Request, name: str) -> bool:
    """A query parameter, as Go reads booleans."""
    return request.query_params.get(name, "") in ("1", "t", "T", "true", "TRUE", "True")

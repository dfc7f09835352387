"""Failures that a test asks for, and a record of what clients did."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.kubernetes_api.errors import ApiError


@dataclass(frozen=True)
class Seen:
    """One request, as role-based access control sees it."""

    verb: str
    group: str
    resource: str
    """With its subresource, such as `pods/log`."""
    namespace: str
    name: str
    manager: str
    body: Any = None


@dataclass
class Fault:
    """A failing answer to the next requests that fit."""

    verb: str
    resource: str
    error: ApiError
    times: int


class Faults:
    """What goes wrong, and what was asked."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.dropped = 0
        """How often all watches were cut off."""
        self._faults: list[Fault] = []
        self._rules: Sequence[Mapping[str, Sequence[str]]] | None = None
        self._lock = threading.Lock()

    def fail(
        self,
        code: int,
        *,
        verb: str = ".*",
        resource: str = ".*",
        times: int = 1,
        message: str = "injected",
        retry_after: int | None = None,
    ) -> None:
        """The next `times` requests whose verb and resource fit the expressions fail with `code`."""
        self._faults.append(Fault(verb, resource, ApiError(code, message, retry_after=retry_after), times))

    def allow_only(self, rules: Sequence[Mapping[str, Sequence[str]]] | None) -> None:
        """From now on what no rule of these (a Role's `rules`) allows is 403 Forbidden."""
        self._rules = rules

    def drop_watches(self) -> None:
        """Cuts every open watch off in the middle of its answer."""
        self.dropped += 1

    def check(self, seen: Seen) -> None:
        """Raises:
        ApiError: 403, or what a test asked for.
        """
        with self._lock:
            self.requests.append(seen)
            if self._rules is not None and not any(_allows(rule, seen) for rule in self._rules):
                raise ApiError(403, f'cannot {seen.verb} resource "{seen.resource}" in API group "{seen.group}"')
            for fault in self._faults:
                fits = re.fullmatch(fault.verb, seen.verb) and re.fullmatch(fault.resource, seen.resource)
                if fault.times and fits:
                    fault.times -= 1
                    raise fault.error


def _allows(rule: Mapping[str, Sequence[str]], seen: Seen) -> bool:
    names = rule.get("resourceNames")
    return (
        seen.verb in rule["verbs"]
        and seen.group in rule["apiGroups"]
        and seen.resource in rule["resources"]
        and (not names or seen.name in names)
    )

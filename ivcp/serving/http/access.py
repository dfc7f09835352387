"""Who may ask: a key for every route but those that are named free here."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from ivcp.serving.http.problems import ProblemError
from ivcp.serving.http.timings import current_timings
from ivcp.serving.keys import KeyKind, KeyRefusedError, KeyRing

FREE_PATHS = frozenset({"/", "/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Probes, what Prometheus reads, and the page, which asks its reader for a key."""
PAGE_FILES = "/page/"
_OPERATORS = "/v1/models"
_READING = frozenset({"GET", "HEAD"})


class Access:
    """Asks each request for its key, before anything of its body is read."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None, has_operators: bool = True) -> None:
        """`keys` null lets everybody ask for predictions, and nobody load models.

        Without `has_operators` no route is theirs.
        """
        self.app, self._keys, self._has_operators = app, keys, has_operators

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is allowed."""
        kind = needed_key(scope["path"]) if scope["type"] == "http" else None
        if kind == "operator" and not self._has_operators:
            kind = "inference"
        if kind is None:
            await self.app(scope, receive, send)
            return
        with ExitStack() as held:
            try:
                self._admit(kind, scope, held)
            except KeyRefusedError as error:
                await self._refuse(error, scope, receive, send)
                return
            await self.app(scope, receive, send)

    def _admit(self, kind: KeyKind, scope: Scope, held: ExitStack) -> None:
        if self._keys is None:
            if kind == "operator" and scope["method"] not in _READING:
                raise KeyRefusedError(
                    "key_not_allowed", "expected an operator's key, of which this server has none (operator_keys)"
                )
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        name = self._keys.check(kind, headers.get(b"authorization"), headers.get(b"x-api-key"))
        current_timings().key = None if name is None else str(name)
        held.enter_context(self._keys.under_way(name))

    async def _refuse(self, error: KeyRefusedError, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Connection": "close"} | (
            {"WWW-Authenticate": "Bearer"} if error.code in ("key_missing", "key_unknown") else {}
        )
        problem = ProblemError(error.code, str(error), retry_after=error.retry_seconds, headers=headers)
        current_timings().code = problem.code
        await problem.response(scope)(scope, receive, send)


def needed_key(path: str) -> KeyKind | None:
    """What a path asks for; null where it is free."""
    if path in FREE_PATHS or path.startswith(PAGE_FILES):
        return None
    return "operator" if path == _OPERATORS or path.startswith(f"{_OPERATORS}/") else "inference"

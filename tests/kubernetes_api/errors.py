"""Failures as the API server tells them: a `Status` object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class UnknownPathError(Exception):
    """A path that the server does not serve: no `Status` object, but what Go's own server writes.

    Seen on Kubernetes 1.36, for kinds of objects whose operator is not installed too.
    """

    content = "404 page not found\n"


class ApiError(Exception):
    """An answer other than success."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        causes: Sequence[Mapping[str, str]] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason or REASONS.get(code, "Unknown")
        self.causes, self.retry_after = causes, retry_after

    def status(self) -> dict[str, Any]:
        """The body of the answer."""
        details: dict[str, Any] = {"causes": [dict(cause) for cause in self.causes]} if self.causes else {}
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def not_found(plural: str, name: str) -> ApiError:
    return ApiError(404, f'{plural} "{name}" not found')

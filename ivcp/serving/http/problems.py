"""Errors as the API says them: problem+json (RFC 9457) with a code that does not change.

The codes are also labels of the metrics and words of the log, so that an alert and a client name the same thing.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import Scope

from ivcp.data.prompts import PromptError
from ivcp.inference.finite import NonFiniteError
from ivcp.serving.decoding import DecoderError, TooManyTokensError
from ivcp.serving.held_files import ModelChangedError
from ivcp.serving.remote_videos import UriError
from ivcp.video import VideoError

MEDIA_TYPE = "application/problem+json"
_OPEN_INFERENCE = "/v2"
"""Routes whose protocol wants the message in `error` of application/json: KServe's client reads no other type."""
SPEAKS_OPENAI = "speaks_openai"
"""Set in the state of a request whose errors have the shape of OpenAI's API."""
_OPENAI_TYPES = {
    **dict.fromkeys((400, 404, 405, 408, 413, 415), "invalid_request_error"),
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_OPENAI_CODES = {
    "key_missing": "invalid_api_key",
    "key_unknown": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "too_many_tokens": "context_length_exceeded",
}
"""Codes for which clients look under another name."""
CLIENT_GONE = "client_gone"
STATUS_OF_CODE: Mapping[str, int] = {
    "bad_request": 400,
    "key_missing": 401,
    "key_unknown": 401,
    "key_not_allowed": 403,
    "uri_forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "uri_not_found": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "body_too_large": 413,
    "uri_too_large": 413,
    "unsupported_media_type": 415,
    "bad_request_fields": 422,
    "bad_prompt": 422,
    "too_many_tokens": 422,
    "bad_model": 422,
    "rate_limited": 429,
    CLIENT_GONE: 499,  # nobody reads it: for metrics and log, as nginx calls it
    "non_finite": 500,
    "internal": 500,
    "uri_failed": 502,
    "loading": 503,
    "not_ready": 503,
    "draining": 503,
    "overloaded": 503,
    "no_decoder": 503,
    "model_changed": 503,
    "uri_timeout": 504,
    "deadline_exceeded": 504,
}
"""Besides these there is `video_<reason>`, 422, for every reason of `VideoError`."""
_RETRY_SECONDS = 5
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PASSES_BY = frozenset({"loading", "not_ready", "draining", "overloaded", "no_decoder"})
"""Codes after which the same request may succeed a little later."""


class ProblemError(Exception):
    """A request that is refused or failed: `code` for programs, `detail` for people."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        errors: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`retry_after`: seconds after which it is worth another try; `errors`: what is wrong with which field."""
        super().__init__(code, detail)
        self.code, self.detail, self.errors = code, detail, errors
        self.status = STATUS_OF_CODE.get(code, HTTPStatus.UNPROCESSABLE_ENTITY)
        if retry_after is None and code in _PASSES_BY:
            retry_after = _RETRY_SECONDS
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """What is sent."""
        title = "Client Closed Request" if self.code == CLIENT_GONE else HTTPStatus(self.status).phrase
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": title,
            "status": int(self.status),
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors is not None:
            body["errors"] = self.errors
        return body | ({"request_id": request_id} if request_id else {})

    @property
    def openai_status(self) -> int:
        """The status that OpenAI's API has where a request does not fit: there is no 422."""
        return 400 if self.status == HTTPStatus.UNPROCESSABLE_ENTITY else int(self.status)

    def openai_body(self) -> dict[str, Any]:
        """What is sent where clients expect OpenAI's errors."""
        named = self.errors[0]["loc"] if self.errors else ()
        return {
            "error": {
                "message": self.detail,
                "type": _OPENAI_TYPES.get(self.openai_status, "server_error"),
                "param": ".".join(map(str, named)) or None,
                "code": _OPENAI_CODES.get(self.code, self.code),
            }
        }

    def response(self, scope: Scope) -> JSONResponse:
        """The HTTP response to the request of `scope`."""
        if scope.get("state", {}).get(SPEAKS_OPENAI):
            return JSONResponse(self.openai_body(), status_code=self.openai_status, headers=self.headers)
        body, media_type = self.body(scope.get("state", {}).get("request_id")), MEDIA_TYPE
        if scope["path"].startswith(_OPEN_INFERENCE):
            body["error"], media_type = self.detail, "application/json"
        return JSONResponse(body, status_code=self.status, media_type=media_type, headers=self.headers)


def problem_of(error: Exception) -> ProblemError | None:
    """What a failed prediction is answered; null where that is nobody's fault but the program's."""
    match error:
        case ProblemError():
            return error
        case ExceptionGroup():
            return problem_of(error.exceptions[0])
        case VideoError():
            return ProblemError(f"video_{error.reason}", f"video: {error}")
        case TooManyTokensError():
            return ProblemError("too_many_tokens", f"prompt: {error}")
        case PromptError():
            return ProblemError("bad_prompt", f"prompt: {error}")
        case DecoderError():
            return ProblemError("no_decoder", str(error))
        case OSError() if error.errno in _FULL:
            return ProblemError("overloaded", "the server's disk for uploads is full: send it again later")
        case ModelChangedError():
            return ProblemError("model_changed", str(error))
        case UriError():
            return ProblemError(error.code, f"uri: {error}")
        case NonFiniteError():
            return ProblemError("non_finite", str(error))
    return None

"""Why a predictor gave no answer: its own problem+json, another program's page, or a connection that failed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx
from pydantic import ValidationError

from ivcp.client.waiting import Deadline, DeadlineOverError, read_retry_after
from ivcp.records.answers import Failure, Problem

_MOST_SHOWN = 300
"""Characters of an error page that is not the predictor's."""
_TEMPORARY_STATUS = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE})
_TEMPORARY_CODES = frozenset({"unreachable", "connection_lost"})


class ApiError(RuntimeError):
    """A request without an answer.

    `code` is the predictor's stable name of the reason, such as `video_truncated`; or, without its word, one of
    `unreachable`, `connection_lost`, `deadline_exceeded`, `bad_certificate`, `not_sent`, `bad_answer`, `http_<status>`.
    """

    def __init__(
        self,
        status: int | None,
        code: str,
        detail: str,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """`status` is null where nothing was answered."""
        super().__init__(status, code, detail, request_id, retry_after_seconds)  # all, so that it crosses processes
        self.status, self.code, self.detail, self.request_id = status, code, detail, request_id
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"

    @property
    def failure(self) -> Failure:
        """As a record."""
        return Failure(code=self.code, detail=self.detail, status=self.status, request_id=self.request_id)

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may be answered a little later."""
        return self.status in _TEMPORARY_STATUS or (self.status is None and self.code in _TEMPORARY_CODES)


def error_of(response: httpx.Response, body: bytes, request_id: str) -> ApiError:
    """What an answer other than 200 says, also where a gateway in between gave it."""
    status, request_id = response.status_code, response.headers.get("X-Request-Id", request_id)
    retry_after = read_retry_after(response.headers.get("Retry-After"))
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        return ApiError(status, f"http_{status}", _words_of(response, body), request_id, retry_after)
    return error_of_problem(problem, request_id, retry_after)


def error_of_problem(problem: Problem, request_id: str, retry_after_seconds: float | None = None) -> ApiError:
    """The predictor's own words."""
    return ApiError(problem.status, problem.code, problem.detail, problem.request_id or request_id, retry_after_seconds)


@contextmanager
def translated(url: str, deadline: Deadline, request_id: str) -> Iterator[None]:
    """What fails in the block as `ApiError`; `url` is where the request goes."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise ApiError(None, "unreachable", f"{url} does not take connections", request_id) from error
    except (httpx.TimeoutException, DeadlineOverError) as error:
        detail = f"{url} did not answer within {deadline.seconds:g} s"
        raise ApiError(None, "deadline_exceeded", detail, request_id) from error
    except httpx.ConnectError as error:
        if _is_certificate(error):
            detail = f"{url}: {error}; where its authority is your own, name its file in IVCP_CA_FILE"
            raise ApiError(None, "bad_certificate", detail, request_id) from error
        raise ApiError(None, "unreachable", f"{url} cannot be reached: {error}", request_id) from error
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
        raise ApiError(None, "not_sent", f"the request to {url} could not be made: {error}", request_id) from error
    except httpx.TransportError as error:
        what = str(error) or type(error).__name__
        raise ApiError(None, "connection_lost", f"{url} broke off: {what}", request_id) from error
    except httpx.DecodingError as error:
        raise ApiError(None, "bad_answer", f"{url} does not answer as a predictor: {error}", request_id) from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors()[:3])
        raise ApiError(None, "bad_answer", f"{url} does not answer as a predictor: {found}", request_id) from error


def _words_of(response: httpx.Response, body: bytes) -> str:
    if response.has_redirect_location:
        return f"it leads to {response.headers['Location']}: give that address"
    return f"{response.reason_phrase}: {body[:_MOST_SHOWN].decode('utf-8', 'replace').strip()}"


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False

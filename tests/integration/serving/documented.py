"""Which answers are in the API's documentation."""

from __future__ import annotations

from typing import Any, get_args

import httpx

from ivcp.records.answers import Answer, Problem
from ivcp.serving.http.problems import STATUS_OF_CODE
from ivcp.video.files import Reason

CODES = {*STATUS_OF_CODE, *(f"video_{reason}" for reason in get_args(Reason))}
FAILURES = {"internal", "non_finite", "deadline_exceeded"}


def code_of(reply: httpx.Response) -> str:
    """`ok`, or the code of the problem that was answered, which must be a documented one and no failure."""
    assert reply.status_code != 500, reply.text[:500]
    assert reply.headers["x-request-id"]
    assert "ivcp-uploads" not in reply.text  # nothing of the server's own folders
    if reply.status_code == 200:
        return "ok"
    is_open_inference = reply.request.url.path.startswith("/v2")
    expected = "application/json" if is_open_inference else "application/problem+json"
    assert reply.headers["content-type"] == expected, reply.text[:500]
    problem = Problem.model_validate(reply.json())
    assert problem.status == reply.status_code
    assert problem.code in CODES - FAILURES, problem
    assert STATUS_OF_CODE.get(problem.code, 422) == problem.status
    assert problem.detail
    return problem.code


def predicted(client: httpx.Client, content: bytes, name: str = "clip.mp4", **fields: Any) -> tuple[str, Answer | None]:
    """The code for a file that is sent in a form, and the answer where there is one."""
    reply = client.post("/v1/predict", files={"video": (name, content)}, data=fields)
    code = code_of(reply)
    return code, Answer.model_validate(reply.json()) if code == "ok" else None

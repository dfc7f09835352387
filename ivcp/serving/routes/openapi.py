"""How requests and errors are described in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ivcp.records.answers import Problem
from ivcp.serving.http.problems import MEDIA_TYPE

_SAID = {
    400: "The body cannot be read.",
    401: "A key is missing or unknown.",
    403: "The key or the URI is not allowed.",
    404: "There is no such model or video.",
    405: "There is no such method.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "The request does not fit, or its video or prompt cannot be used: `code` says why.",
    429: "The key's limit is reached: send it again after `Retry-After` seconds.",
    500: "The model's numbers are not finite, or the server failed.",
    502: "The server of the URI failed.",
    503: "Loading, ending, or too much to do: send it again after `Retry-After` seconds.",
    504: "It was not answered in time.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route."""
    return {
        status: {
            "description": _SAID[status],
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


ON_EVERY_ROUTE = problems(401, 403, 405, 429, 503)
OF_A_MODEL = {**ON_EVERY_ROUTE, **problems(404, 422)}
"""Of routes that take a model's name."""
OF_PREDICTIONS = problems(400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 502, 503, 504)


def body_of(form: type[BaseModel] | None, body: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """For `openapi_extra=` of a route that reads a form with a video, or JSON."""
    content: dict[str, Any] = {"application/json": {"schema": inlined(body), "example": example}}
    if form is not None:
        schema = inlined(form)
        schema["properties"] = {
            "video": {"type": "string", "format": "binary", "description": "A video file."},
            **schema["properties"],
        }
        schema["required"] = ["video"]
        content = {"multipart/form-data": {"schema": schema}} | content
    return {"requestBody": {"required": True, "content": content}}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without references: it stands alone in the document."""
    schema = model.model_json_schema(ref_template="{model}")
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, list):
            return [resolve(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolve(definitions[part["$ref"]])
        return {key: resolve(value) for key, value in part.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved

"""What a server is told: by flags, by environment variables `IVCP_SERVE_<NAME>`, or by a caller."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin

from pydantic import Field, ValidationError

from ivcp.records import Record

PREFIX = "IVCP_SERVE_"


class ServerSettings(Record):
    """How one predictor answers; the defaults suit a pod with a few cores."""

    max_upload_mb: float = Field(512.0, gt=0)
    """Largest request, in MB (10^6 bytes)."""
    max_json_mb: float = Field(64.0, gt=0)
    """Largest JSON request, in MB: it is held in memory."""
    max_uploads_mb: float = Field(2048.0, gt=0)
    """Of all requests under way together, in MB; on disk there may be twice as much."""
    max_requests: int = Field(64, ge=1)
    """Requests for predictions that are under way or wait; more are answered 503 before their body is read."""
    upload_timeout_seconds: float = Field(120.0, gt=0)
    """How long a client may take to send its request."""
    request_timeout_seconds: float = Field(180.0, gt=0)
    """How long a request may take from its first byte to its answer; a client may ask for less."""
    num_decoders: int | None = Field(None, ge=1)
    """Processes that decode videos; null is one for each core."""
    decode_timeout_seconds: float = Field(60.0, gt=0)
    """How long decoding one clip may take."""
    decode_memory_gb: float = Field(4.0, gt=0)
    """Memory that decoding one video may take, in GB."""
    max_batch_tokens: int = Field(16384, ge=1)
    """Tokens of one batch, with padding."""
    max_batch_wait_ms: float = Field(10.0, ge=0)
    """How long a clip waits for others that are being decoded, to be computed together with them, in milliseconds."""
    max_batch_requests: int = Field(256, ge=1)
    """Requests in one `predict:batch`."""
    max_frames: int = Field(1024, ge=1)
    """Pictures in a request that sends `frames`."""
    max_windows: int = Field(2000, ge=1)
    """Windows of one timeline."""
    drain_seconds: float = Field(30.0, gt=0)
    """How long requests that were accepted have to be answered after SIGTERM."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] | None = None, **given: Any) -> Self:
        """What is `given`, and for the rest what `IVCP_SERVE_<NAME>` says.

        Raises:
            ValueError: a variable has no such name or no such value.
        """
        variables = os.environ if variables is None else variables
        named = {key[len(PREFIX) :].lower(): value for key, value in variables.items() if key.startswith(PREFIX)}
        values = {key: _parsed(value) for key, value in named.items() if value != ""}
        try:
            return cls.model_validate(values | given)
        except ValidationError as error:
            found = "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
            raise ValueError(f"the server's settings do not fit: {found}") from error


def _parsed(value: str) -> Any:
    return [part.strip() for part in value.split(",")] if "," in value else value


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting; one that is not given is left out of what `given_flags` returns."""
    for name, field in ServerSettings.model_fields.items():
        kind, many = _kind(field.annotation)
        default = "cores" if field.default is None else field.default
        options: dict[str, Any] = {"help": f"{field.description} (default: {default})"}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()} | ({"nargs": "*"} if many else {})
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, **options)


def given_flags(arguments: dict[str, Any]) -> dict[str, Any]:
    """Takes the settings out of parsed arguments."""
    return {name: arguments.pop(name) for name in list(arguments) if name in ServerSettings.model_fields}


def _kind(annotation: Any) -> tuple[type, bool]:
    """The type of a flag's value, and whether there may be several."""
    if get_origin(annotation) is UnionType:
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
    if get_origin(annotation) is tuple:
        return str, True
    return annotation, False


def settings_table() -> Sequence[tuple[str, str, str]]:
    """Name, default and meaning of each setting."""
    return [
        (name, "null" if field.default is None else str(field.default), field.description or "")
        for name, field in ServerSettings.model_fields.items()
    ]

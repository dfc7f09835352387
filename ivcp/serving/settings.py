"""What a server is told: by flags, by environment variables `IVCP_SERVE_<NAME>`, or by a caller."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import Field, ValidationError, model_validator

from ivcp.records import Record
from ivcp.serving.keys import KeyLimits, KeyRing
from ivcp.serving.remote_videos import UriRules

PREFIX = "IVCP_SERVE_"
InferDtype = Literal["auto", "float32", "bfloat16"]


class ServerSettings(Record):
    """How one predictor answers; the defaults suit a pod with a few cores."""

    max_upload_mb: float = Field(512.0, gt=0)
    """Largest request, in MB (10^6 bytes)."""
    max_json_mb: float = Field(64.0, gt=0)
    """Largest request that is no form, JSON or binary tensors, in MB: it is held in memory."""
    max_uploads_mb: float = Field(2048.0, gt=0)
    """Of all requests under way together with what they have fetched, in MB; on disk there may be twice as much."""
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
    decode_memory_gb: float = Field(2.0, gt=0)
    """Memory that decoding one video may take in each of these processes, in GB: enough for 7680x4320 pixels."""
    max_batch_tokens: int = Field(16384, ge=1)
    """Tokens of one batch, with padding."""
    max_batch_wait_ms: float = Field(10.0, ge=0)
    """How long a clip waits for others that are being decoded, to be computed together with them, in milliseconds."""
    turn_tokens: int = Field(64, ge=1)
    """Of models that write: tokens of each answer that are written before others that wait join, or have their turn."""
    max_context_tokens: int | None = Field(None, ge=1)
    """Of models that write or score: longest conversation with its answer; null is what the model was made for."""
    media_cache_mb: float = Field(256.0, ge=0)
    """Of models that write or score: decoded frames of recent videos and images that each keeps, in MB, so that a
    further turn of a conversation does not decode them again; 0 keeps none."""
    max_media: int = Field(16, ge=1)
    """Videos in the conversations of one request."""
    max_batch_requests: int = Field(256, ge=1)
    """Requests in one `predict:batch`, or conversations in one `score`."""
    max_frames: int = Field(1024, ge=1)
    """Pictures in a request that sends `frames`."""
    max_windows: int = Field(2000, ge=1)
    """Windows of one timeline."""
    max_video_seconds: float = Field(21600.0, gt=0)
    """Longest video, also where a request asks for a part of it."""
    keys: str | None = Field(None, min_length=1)
    """Folder or file with the keys that requests need, such as a mounted secret: each file's name is the key's name,
    its content the key. Null asks for none."""
    operator_keys: str | None = Field(None, min_length=1)
    """The same for the keys that may load and unload models."""
    key_requests_per_minute: float | None = Field(None, gt=0)
    """Of each key."""
    key_max_concurrent: int | None = Field(None, ge=1)
    """Requests of each key that are under way."""
    uri_hosts: tuple[str, ...] = ()
    """Servers whose videos a request may name: `videos.example.com`, or `*.example.com` for all names below one."""
    uri_buckets: tuple[str, ...] = ()
    """`s3://bucket` or `s3://bucket/prefix` that a request may read, with this server's credentials."""
    uri_networks: tuple[str, ...] = ()
    """Networks (CIDR) that are not public and that those servers may be in."""
    uri_schemes: tuple[Literal["https", "http"], ...] = ("https",)
    """How those servers may be asked."""
    uri_ports: tuple[int, ...] = ()
    """Ports of those servers; none is the scheme's own."""
    uri_timeout_seconds: float = Field(60.0, gt=0)
    """For fetching one video, with the resolution of the server's name."""
    infer_dtype: InferDtype = "auto"
    """What PyTorch computes in: `auto` is the precision of the training, as evaluation has it, on a CPU too. With
    another one answers differ from evaluation's."""
    probe_port: int | None = Field(None, ge=0, le=65535)
    """Another port for probes and metrics, which then are not on the first one; null has all on one."""
    drain_seconds: float = Field(30.0, gt=0)
    """How long requests that were accepted have to be answered after SIGTERM."""

    @property
    def uri_rules(self) -> UriRules:
        """Where videos may be fetched from.

        Raises:
            ValidationError: a host, bucket or network is none.
        """
        return UriRules(
            hosts=self.uri_hosts,
            buckets=self.uri_buckets,
            networks=self.uri_networks,
            schemes=self.uri_schemes,
            ports=self.uri_ports,
            max_bytes=int(self.max_upload_mb * 1e6),
            total_seconds=self.uri_timeout_seconds,
        )

    @property
    def key_ring(self) -> KeyRing | None:
        """The keys of both kinds; null where there are none.

        Raises:
            KeyFilesError, OSError: they cannot be read.
        """
        if self.keys is None and self.operator_keys is None:
            return None
        limits = KeyLimits(requests_per_minute=self.key_requests_per_minute, max_concurrent=self.key_max_concurrent)
        paths = [None if path is None else Path(path) for path in (self.keys, self.operator_keys)]
        return KeyRing(*paths, limits=limits)

    @model_validator(mode="after")
    def _reads_from_somewhere(self) -> Self:
        _ = self.uri_rules
        return self

    @classmethod
    def from_environment(
        cls, given: Mapping[str, Any] | None = None, *, variables: Mapping[str, str] | None = None
    ) -> Self:
        """What is `given`, and for the rest what `IVCP_SERVE_<NAME>` says.

        Raises:
            ValueError: a variable has no such name or no such value.
        """
        variables = os.environ if variables is None else variables
        named = {key[len(PREFIX) :].lower(): value for key, value in variables.items() if key.startswith(PREFIX)}
        values = {key: value for key, value in named.items() if value != ""}
        values |= given or {}
        for name in values.keys() - cls.model_fields.keys():
            raise ValueError(f"{name!r} is no setting of the server{_nearest(name)}: docs/serving.md lists them")
        try:
            return cls.model_validate(_listed(values))
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise ValueError(f"the server's settings ({PREFIX}<NAME>) do not fit: {found}") from error


def _nearest(name: str) -> str:
    found = difflib.get_close_matches(name, ServerSettings.model_fields, n=1)
    return f"; the nearest is {found[0]}" if found else ""


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    """Commas divide the values of a setting that takes several."""
    several = {name for name, field in ServerSettings.model_fields.items() if _kind(field.annotation)[1]}
    return {
        name: [part.strip() for part in value.split(",")] if name in several and isinstance(value, str) else value
        for name, value in values.items()
    }


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
    if get_origin(annotation) is Literal:
        return str, False
    return annotation, False

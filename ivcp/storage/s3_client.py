"""The S3 client of this process, set up the way it is for the AWS tools: from boto3's own chain.

Environment variables, profiles and their roles, web identity, container and machine credentials count, and so do
`AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`, `AWS_RETRY_MODE` and `AWS_MAX_ATTEMPTS`. boto3 knows no
`AWS_REGION`, which the other tools read, and no `AWS_REQUEST_PAYER`, as GDAL names it: those are read here. Without
credentials requests are not signed, which is how public buckets are read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARALLEL_REQUESTS = 16
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_ATTEMPTS = 6
"""Of one request, with a growing pause between them: about half a minute of 503."""
_UNSIGNED_SECONDS = 60.0
"""After this time a machine that had no role is asked again; all other credentials are noticed at once."""
_HOME_FILES = ("credentials", "config", "sso/cache", "login/cache")
"""Below `~/.aws`: what credentials come from."""


@dataclass(frozen=True)
class _Kept:
    surroundings: object
    made_at: float
    client: Any


_kept: dict[int, _Kept] = {}


def client(process_id: int) -> Any:
    """One client per process: threads may share it, forked processes may not.

    Another one is made when what it was made from changes. One without credentials looks for some again.
    """
    surroundings, kept = _surroundings(), _kept.get(process_id)
    if kept is None or kept.surroundings != surroundings or _is_outdated(kept):
        kept = _Kept(surroundings, time.monotonic(), _make())
        _kept[process_id] = kept
    return kept.client


def is_unsigned(made: Any) -> bool:
    """Whether a client has no credentials."""
    from botocore import UNSIGNED

    return bool(made.meta.config.signature_version is UNSIGNED)


def forget_clients() -> None:
    """The next call makes a new client."""
    _kept.clear()


def _is_outdated(kept: _Kept) -> bool:
    return is_unsigned(kept.client) and time.monotonic() - kept.made_at > _UNSIGNED_SECONDS


def _surroundings() -> object:
    """What credentials and settings are read from; it costs microseconds to compare, the chain itself costs more."""
    variables = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    named = [variables[key] for key in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE") if key in variables]
    home = Path(os.environ.get("HOME", "/")) / ".aws"
    files = [Path(name) for name in named] + [home / name for name in _HOME_FILES]
    return variables, [_version(file) for file in files]


def _version(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _make() -> Any:
    from boto3.session import Session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session as Settings

    settings = Settings()  # not boto3.client: its module-wide session keeps the first credentials it saw
    if region := os.environ.get("AWS_REGION"):
        settings.set_config_variable("region", region)  # for the clients that fetch credentials too
    session = Session(botocore_session=settings)
    made = session.client(
        "s3",
        config=Config(
            signature_version="s3v4" if session.get_credentials() else UNSIGNED,
            retries=_retries(settings.get_scoped_config()) or None,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=2 * PARALLEL_REQUESTS,
            # S3-compatible servers (rclone, older MinIO) fail on the checksums that boto3 adds by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    if payer := os.environ.get("AWS_REQUEST_PAYER"):
        if payer != "requester":
            raise ValueError(f"AWS_REQUEST_PAYER = {payer!r}: expected requester, or no such variable")
        made.meta.events.register("provide-client-params.s3", _pay)
    return made


def _retries(profile: Mapping[str, Any]) -> dict[str, Any]:
    retries: dict[str, Any] = {}
    if "AWS_RETRY_MODE" not in os.environ and "retry_mode" not in profile:
        retries["mode"] = "standard"
    if "AWS_MAX_ATTEMPTS" not in os.environ and "max_attempts" not in profile:
        retries["total_max_attempts"] = _ATTEMPTS
    return retries


def _pay(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
    """Says of a request that this account pays for it, where S3 knows that."""
    return {"RequestPayer": "requester"} | params if "RequestPayer" in model.input_shape.members else params
